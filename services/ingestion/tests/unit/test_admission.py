"""Each reason to refuse rows: alone, among good rows, and with others."""

import math
import uuid
from typing import Any

import numpy as np
import pytest

from tidewire.registry.v1.resources_pb2 import Device, Tenant, TenantQuotas
from tidewire_ingestion.domain import Outcome, Reason
from tidewire_kit.errors import InvalidArgument, Unauthenticated, Unavailable
from tidewire_kit.telemetry.batch import RawBatch
from tidewire_kit.telemetry.wire import decode_batch

YEAR_2000_US = 946_684_800_000_000
MINUTE_US = 60_000_000


def only(outcome: Outcome) -> Any:
    (refusal,) = outcome.refusals
    return refusal


async def test_a_good_batch_is_accepted_whole(bench: Any) -> None:
    pump = bench.world.add_device(bench.tenant, "pump")
    outcome = await bench.publish(
        bench.batch(metrics=["a", "b"], times=[10**15, 10**15 + 1], values=[1, 2, 3, math.nan])
    )
    assert (outcome.accepted_readings, outcome.refused_readings, outcome.refusals) == (3, 0, [])
    assert bench.rows() == [
        (pump.uid, "a", 10**15, 1.0),
        (pump.uid, "b", 10**15, 3.0),
        (pump.uid, "a", 10**15 + 1, 2.0),
    ]
    assert (bench.counts.batches, bench.counts.accepted) == (1, 3)


async def test_an_unknown_device_is_refused_and_its_neighbours_are_kept(bench: Any) -> None:
    pump = bench.world.add_device(bench.tenant, "pump")
    batch = bench.batch(["pump", "ghost", "spirit"], index=[0, 1, 0, 2, 1], values=[1, 2, 3, 4, 5])
    outcome = await bench.publish(batch)
    refusal = only(outcome)
    assert (refusal.reason, refusal.frame, refusal.rows, refusal.readings) == (Reason.DEVICE_UNKNOWN, 0, 3, 3)
    assert refusal.first_rows == (1, 3, 4)
    assert "'ghost', 'spirit'" in refusal.message
    assert "create it first" in refusal.message
    assert (outcome.accepted_readings, outcome.refused_readings) == (2, 3)
    assert [(device, value) for device, _, _, value in bench.rows()] == [(pump.uid, 1.0), (pump.uid, 3.0)]
    assert bench.counts.refusals == {Reason.DEVICE_UNKNOWN: 3}


async def test_a_bad_device_that_no_row_names_does_no_harm(bench: Any) -> None:
    bench.world.add_device(bench.tenant, "pump")
    outcome = await bench.publish(bench.batch(["pump", "ghost"], index=[0, 0]))
    assert (outcome.accepted_readings, outcome.refusals) == (2, [])


async def test_devices_of_another_tenant_are_unknown(bench: Any) -> None:
    other = bench.world.add_tenant("other")
    bench.world.add_device(other, "pump")
    refusal = only(await bench.publish(bench.batch()))
    assert refusal.reason is Reason.DEVICE_UNKNOWN
    assert bench.rows() == []


@pytest.mark.parametrize("state", [Device.BLOCKED, Device.QUARANTINED, Device.RETIRED])
async def test_a_blocked_device_is_refused(bench: Any, state: Any) -> None:
    pump = bench.world.add_device(bench.tenant, "pump")
    bench.world.set_device_state(pump, state)
    refusal = only(await bench.publish(bench.batch()))
    assert refusal.reason is Reason.DEVICE_BLOCKED
    assert "'pump'" in refusal.message
    bench.world.set_device_state(pump, Device.ACTIVE)
    assert (await bench.publish(bench.batch())).accepted_readings == 1


async def test_a_deleted_device_is_unknown_and_a_new_one_of_its_name_is_another(bench: Any) -> None:
    pump = bench.world.add_device(bench.tenant, "pump")
    bench.world.delete_device(pump)
    assert only(await bench.publish(bench.batch())).reason is Reason.DEVICE_UNKNOWN
    again = bench.world.add_device(bench.tenant, "pump")
    await bench.publish(bench.batch())
    assert [device for device, *_ in bench.rows()] == [again.uid]


async def test_a_device_publishes_for_itself_and_its_descendants_only(bench: Any) -> None:
    world = bench.world
    site = world.add_device(bench.tenant, "site")
    gateway = world.add_device(bench.tenant, "gateway", ancestors=[site.uid])
    sensor = world.add_device(bench.tenant, "sensor", ancestors=[gateway.uid, site.uid])
    stranger = world.add_device(bench.tenant, "stranger", ancestors=[site.uid])
    world.set_device_state(stranger, Device.BLOCKED)
    caller = world.verifier.verify(world.device_token(world.add_credential(gateway)))
    batch = bench.batch(["gateway", "sensor", "stranger", "site", "nobody"], index=[0, 1, 2, 3, 4])
    outcome = await bench.publish(batch, caller)
    by_reason = {refusal.reason: refusal for refusal in outcome.refusals}
    # The stranger's state is not told to somebody who has no business with it.
    assert by_reason[Reason.NOT_YOUR_DEVICE].first_rows == (2, 3)
    assert by_reason[Reason.DEVICE_UNKNOWN].first_rows == (4,)
    assert {device for device, *_ in bench.rows()} == {gateway.uid, sensor.uid}
    (_, record) = bench.log.records()[0]
    assert record.tables[0].segment_publisher_uids[0].tobytes() == gateway.uid


async def test_a_device_without_a_list_publishes_for_itself(bench: Any) -> None:
    pump = bench.world.add_device(bench.tenant, "pump")
    caller = bench.world.verifier.verify(bench.world.device_token(bench.world.add_credential(pump)))
    outcome = await bench.publish(bench.batch([]), caller)
    assert outcome.accepted_readings == 1
    assert [device for device, *_ in bench.rows()] == [pump.uid]


async def test_a_user_without_a_list_is_told_to_name_devices(bench: Any) -> None:
    with pytest.raises(InvalidArgument, match="name the devices") as caught:
        await bench.publish(bench.batch([]))
    assert (caught.value.field, caught.value.reason) == ("devices", "NO_DEVICES")
    assert bench.counts.failures == ["NO_DEVICES"]


async def test_times_before_2000_and_more_than_ten_minutes_ahead(bench: Any) -> None:
    bench.world.add_device(bench.tenant, "pump")
    now = bench.clock.now_us()
    times = [
        YEAR_2000_US - 1,
        YEAR_2000_US,
        now,
        now + 10 * MINUTE_US,
        now + 10 * MINUTE_US + 1,
        -(2**63),
        2**63 - 1,
    ]
    outcome = await bench.publish(bench.batch(times=times))
    refusal = only(outcome)
    assert (refusal.reason, refusal.first_rows) == (Reason.CLOCK_SKEW, (0, 4, 5, 6))
    assert "1999-12-31T23:59:59.999999+00:00 in row 0" in refusal.message
    assert "set the device's clock" in refusal.message
    assert [time for _, _, time, _ in bench.rows()] == times[1:4]
    for time in (-(2**63), 2**63 - 1):
        assert f"{time} µs" in only(await bench.publish(bench.batch(times=[time]))).message


async def test_infinities_refuse_their_rows(bench: Any) -> None:
    bench.world.add_device(bench.tenant, "pump")
    values = [1.0, math.inf, 3.0, math.nan, 5.0, 6.0, -math.inf, 8.0]
    outcome = await bench.publish(bench.batch(metrics=["a", "b"], rows=4, values=values))
    refusal = only(outcome)
    assert (refusal.reason, refusal.first_rows, refusal.readings) == (Reason.NOT_FINITE, (1, 2), 4)
    assert "row 1, metric 'a'" in refusal.message
    assert outcome.accepted_readings == 3
    assert sorted(value for *_, value in bench.rows()) == [1.0, 5.0, 8.0]


@pytest.mark.parametrize("name", ["Temperature", "", "1st", "a-b", "a" * 64, "temp\n", "é"])
async def test_a_bad_metric_name_refuses_the_frame(bench: Any, name: str) -> None:
    bench.world.add_device(bench.tenant, "pump")
    refusal = only(await bench.publish(bench.batch(metrics=["good", name], rows=2)))
    assert (refusal.reason, refusal.rows, refusal.readings) == (Reason.BAD_METRIC, 2, 4)
    assert repr(name)[:60] in refusal.message
    assert bench.rows() == []


async def test_1001_columns_and_1001_metrics_of_a_device(bench: Any) -> None:
    bench.world.add_device(bench.tenant, "pump")
    bench.world.add_device(bench.tenant, "fan")
    names = [f"m{number}" for number in range(1001)]
    refusal = only(await bench.publish(bench.batch(metrics=names)))
    assert refusal.reason is Reason.TOO_MANY_METRICS
    assert "1001 columns" in refusal.message
    assert (await bench.publish(bench.batch(metrics=names[:600]))).accepted_readings == 600
    assert (await bench.publish(bench.batch(metrics=names[500:1000]))).accepted_readings == 500
    both = await bench.publish(bench.batch(["pump", "fan"], index=[0, 1, 0], metrics=[names[1000]]))
    refusal = only(both)
    assert (refusal.reason, refusal.first_rows) == (Reason.TOO_MANY_METRICS, (0, 2))
    assert "'pump' would have more than 1000 metrics" in refusal.message
    assert both.accepted_readings == 1
    # What the device had before still comes through.
    assert (await bench.publish(bench.batch(metrics=[names[999], names[0]]))).accepted_readings == 2


async def test_a_tenants_own_limit_of_metrics_holds(bench: Any) -> None:
    small = bench.world.add_tenant("small", TenantQuotas(metrics_per_device=2))
    bench.world.add_device(small, "pump")
    caller = bench.user(small)
    assert (await bench.publish(bench.batch(metrics=["a", "b"]), caller)).accepted_readings == 2
    assert only(await bench.publish(bench.batch(metrics=["c"]), caller)).reason is Reason.TOO_MANY_METRICS


async def test_the_tenants_quota_of_readings_admits_what_fits(bench: Any) -> None:
    small = bench.world.add_tenant("small", TenantQuotas(readings_per_second=10, burst_readings=15))
    bench.world.add_device(small, "pump")
    caller = bench.user(small)
    outcome = await bench.publish(bench.batch(metrics=["a", "b"], rows=10), caller)
    refusal = only(outcome)
    assert (refusal.reason, refusal.first_rows, refusal.readings) == (Reason.QUOTA_TENANT, (7, 8, 9), 6)
    assert outcome.accepted_readings == 14
    assert outcome.retry_delay_seconds == pytest.approx(0.5)
    bench.clock.advance(outcome.retry_delay_seconds)
    assert (await bench.publish(bench.batch(metrics=["a", "b"], rows=3), caller)).refusals == []
    # All refused is still an answer, not an error.
    outcome = await bench.publish(bench.batch(metrics=["a", "b"], rows=3), caller)
    assert (outcome.accepted_readings, outcome.refused_readings) == (0, 6)
    assert outcome.retry_delay_seconds > 0


async def test_the_tenants_quota_of_batches(bench: Any) -> None:
    small = bench.world.add_tenant("small", TenantQuotas(batches_per_second=1))
    bench.world.add_device(small, "pump")
    caller = bench.user(small)
    for _ in range(10):
        assert (await bench.publish(bench.batch(), caller)).accepted_readings == 1
    outcome = await bench.publish(bench.batch(rows=2), caller)
    refusal = only(outcome)
    assert (refusal.reason, refusal.rows) == (Reason.QUOTA_TENANT, 2)
    assert "batches_per_second" in refusal.message
    assert outcome.retry_delay_seconds == pytest.approx(1.0)
    bench.clock.advance(1)
    bench.world.heartbeat()
    assert (await bench.publish(bench.batch(), caller)).accepted_readings == 1


async def test_the_quota_of_a_device_leaves_its_siblings_alone(bench: Any) -> None:
    small = bench.world.add_tenant("small", TenantQuotas(device_readings_per_second=1))
    bench.world.add_device(small, "hot")
    bench.world.add_device(small, "cold")
    caller = bench.user(small)
    index = [0, 1] * 8 + [0] * 8
    outcome = await bench.publish(bench.batch(["hot", "cold"], index=index), caller)
    refusal = only(outcome)
    assert (refusal.reason, refusal.rows) == (Reason.QUOTA_DEVICE, 6)
    assert refusal.first_rows == (18, 19, 20, 21, 22, 23)
    assert "'hot'" in refusal.message
    assert outcome.accepted_readings == 18
    assert outcome.retry_delay_seconds > 0
    bench.clock.advance(2)
    assert (await bench.publish(bench.batch(["hot"], rows=2), caller)).refusals == []
    assert only(await bench.publish(bench.batch(["hot"], rows=1), caller)).reason is Reason.QUOTA_DEVICE


async def test_changed_quotas_hold_at_once(bench: Any) -> None:
    small = bench.world.add_tenant("small", TenantQuotas(readings_per_second=1, burst_readings=1))
    bench.world.add_device(small, "pump")
    caller = bench.user(small)
    await bench.publish(bench.batch(), caller)
    assert (await bench.publish(bench.batch(), caller)).accepted_readings == 0
    from tidewire_testkit.directory import tenant_change

    small.revision += 1
    bench.world.directory.apply(tenant_change(small))
    assert (await bench.publish(bench.batch(rows=1000), caller)).accepted_readings == 1000


async def test_reasons_of_several_frames_and_rows_come_back_grouped(bench: Any) -> None:
    bench.world.add_device(bench.tenant, "pump")
    now = bench.clock.now_us()
    good = bench.batch(["pump", "ghost"], index=[0, 1, 0], times=[now, now, 5], values=[1, 2, 3])
    bad = bench.batch(["pump", "ghost"], index=[1, 0], metrics=["Bad"], values=[1, 2])
    many = bench.batch(["pump", "ghost"], index=[1] * 50)
    outcome = await bench.publish(
        RawBatch(good.batch_id_text, 0, good.devices, good.frames + bad.frames + many.frames)
    )
    assert [(r.frame, r.reason, r.rows, r.first_rows) for r in outcome.refusals] == [
        (0, Reason.DEVICE_UNKNOWN, 1, (1,)),
        (0, Reason.CLOCK_SKEW, 1, (2,)),
        (1, Reason.BAD_METRIC, 2, (0, 1)),
        (2, Reason.DEVICE_UNKNOWN, 50, tuple(range(10))),
    ]  # fmt: skip
    assert (outcome.accepted_readings, outcome.refused_readings) == (1, 54)


async def test_a_batch_that_only_has_nan_names_the_field(bench: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"frames\[0\].values: .*all are NaN"):
        await bench.publish(bench.batch(values=[math.nan]))


async def test_a_blocked_tenant_and_a_stale_directory_refuse_the_batch(bench: Any) -> None:
    bench.world.add_device(bench.tenant, "pump")
    caller = bench.user()
    bench.world.set_tenant_state(bench.tenant, Tenant.BLOCKED)
    with pytest.raises(Unauthenticated) as blocked:
        await bench.publish(bench.batch(), caller)
    assert blocked.value.reason == "TENANT_BLOCKED"
    bench.world.set_tenant_state(bench.tenant, Tenant.ACTIVE)
    bench.clock.advance(8.1)
    with pytest.raises(Unavailable) as stale:
        await bench.publish(bench.batch(), caller)
    assert stale.value.reason == "REGISTRY_STALE"
    bench.world.heartbeat()
    assert (await bench.publish(bench.batch(), caller)).accepted_readings == 1
    assert bench.counts.failures == ["TENANT_BLOCKED", "REGISTRY_STALE"]


async def test_the_same_batch_leaves_the_same_digests_whatever_comes_with_it(bench: Any) -> None:
    for number in range(20):
        bench.world.add_device(bench.tenant, f"d{number}")
    devices = [f"d{number}" for number in range(20)]
    raw_batch = bench.batch(devices, index=list(range(20)) * 3, metrics=["a", "b"])
    batch_id_sent = uuid.UUID(raw_batch.batch_id_text).bytes

    async def digests() -> set[tuple[int, int]]:
        bench.log.calls.clear()
        await bench.publish(raw_batch)
        noise = [bench.publish(bench.batch(devices, index=[5, 6, 7], metrics=["a", "b"])) for _ in range(3)]
        for each in noise:
            await each
        return {
            (partition, digest)
            for partition, record in bench.log.records()
            for table in record.tables
            for batch_id, digest in zip(table.segment_batch_ids, table.segment_digests.tolist(), strict=True)
            if batch_id.tobytes() == batch_id_sent
        }

    first = await digests()
    assert len(first) == len(
        {int(p) for p in bench.world.directory.tenant(bench.tenant.uid).devices.partition[:20]}
    )
    assert await digests() == first


async def test_gaps_in_a_publishers_count_are_reported(bench: Any) -> None:
    bench.world.add_device(bench.tenant, "pump")
    missed = [
        (await bench.publish(bench.batch(sequence=number))).missed_batches
        for number in (4, 5, 8, 7, 0, 9, 1, 2, 4)
    ]
    assert missed == [0, 0, 2, 0, 0, 0, 0, 0, 1]
    assert bench.counts.missed_batches == 3


async def test_random_batches_are_admitted_as_by_a_model(bench: Any) -> None:
    rng = np.random.default_rng(5)
    for number in range(6):
        device = bench.world.add_device(bench.tenant, f"d{number}")
        if number == 5:
            bench.world.set_device_state(device, Device.BLOCKED)
    names = [f"d{number}" for number in range(7)]  # the last does not exist
    now = bench.clock.now_us()
    for _ in range(100):
        rows, columns = int(rng.integers(1, 30)), int(rng.integers(1, 4))
        index = rng.choice([0, 1, 2, 3, 4, 5, 6], rows, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05])
        times = rng.choice([now, now - 10**12, 7, now + 10**10], rows, p=[0.5, 0.4, 0.05, 0.05])
        cells = rng.choice([1.5, math.nan, math.inf], (columns, rows), p=[0.75, 0.2, 0.05])
        if np.isnan(cells).all():
            continue
        metrics = [f"m{number}" for number in range(columns)]
        expected: dict[Reason, list[int]] = {}
        accepted = 0
        for row in range(rows):
            if index[row] == 6:
                reason = Reason.DEVICE_UNKNOWN
            elif index[row] == 5:
                reason = Reason.DEVICE_BLOCKED
            elif times[row] in (7, now + 10**10):
                reason = Reason.CLOCK_SKEW
            elif np.isinf(cells[:, row]).any():
                reason = Reason.NOT_FINITE
            else:
                accepted += int((~np.isnan(cells[:, row])).sum())
                continue
            expected.setdefault(reason, []).append(row)
        batch = bench.batch(
            names,
            index=index.tolist(),
            times=times.tolist(),
            metrics=metrics,
            values=cells.reshape(-1).tolist(),
        )
        outcome = await bench.publish(batch)
        assert outcome.accepted_readings == accepted
        assert {refusal.reason: refusal.first_rows for refusal in outcome.refusals} == {
            reason: tuple(found[:10]) for reason, found in expected.items()
        }
        assert outcome.accepted_readings + outcome.refused_readings == int((~np.isnan(cells)).sum())


def test_decode_is_the_only_door() -> None:
    # What the use case relies on: a frame has at least a row, a metric and a reading.
    with pytest.raises(InvalidArgument):
        decode_batch(b"")
