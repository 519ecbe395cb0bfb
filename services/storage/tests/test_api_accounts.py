"""What administrators ask, statements and reports, over gRPC with tokens."""

import asyncio
import urllib.request

import grpc
import pyarrow as pa
import pytest
from google.type.date_pb2 import Date
from storage_api import NAN, SECOND, T0, Api, collect, refused

from tidewire.storage.v1 import storage_pb2 as pb
from tidewire_kit.identity import Role
from tidewire_testkit.directory import TestTenant
from tidewire_testkit.polling import until


async def test_ledger_usage_and_cut(api: Api, acme: TestTenant) -> None:
    device = api.world.add_device(acme, "a")
    admin = api.as_(None, Role.PLATFORM_ADMIN)
    await api.publish(device, ["m", "n"], [(T0, [1.0, 2.0]), (T0 + 1, [1.0, NAN])])

    async def stored() -> pb.GetLedgerResponse | None:
        answer = await api.stub.GetLedger(pb.GetLedgerRequest(tenant="tenants/acme"), metadata=admin)
        settled = answer.lag_records == 0 and answer.entries and not answer.in_flight_readings
        return answer if settled else None

    answer = await until(stored)
    (entry,) = answer.entries
    assert (entry.tenant, entry.accepted_readings, entry.stored_readings, entry.present_readings) == (
        "tenants/acme",
        3,
        3,
        3,
    )
    assert answer.difference_readings == 0
    everything = await api.stub.GetLedger(pb.GetLedgerRequest(), metadata=admin)
    assert len(everything.entries) == 1
    (usage,) = (
        await api.stub.GetStorageUsage(pb.GetStorageUsageRequest(), metadata=api.as_(None, Role.SERVICE))
    ).usages
    assert usage.tenant_uid == acme.uid.hex()
    assert (usage.accepted_readings, usage.stored_readings) == (3, 3)
    assert usage.stored_bytes > 100
    assert (await api.stub.SealEpochs(pb.SealEpochsRequest(), metadata=admin)).partitions == 1
    assert (await api.stub.SealEpochs(pb.SealEpochsRequest(), metadata=admin)).partitions == 0
    assert (await api.stub.GetLedger(pb.GetLedgerRequest(), metadata=admin)).difference_readings == 0
    code, _, _ = await refused(
        api.stub.GetLedger(pb.GetLedgerRequest(tenant="tenants/nobody"), metadata=admin)
    )
    assert code == grpc.StatusCode.NOT_FOUND


async def test_metrics_tell_what_is_stored_visible_and_missing(api: Api, acme: TestTenant) -> None:
    device = api.world.add_device(acme, "a")
    await api.publish(device, ["m"], [(T0, [1.0]), (T0 + 1, [2.0])])

    def read() -> dict[str, float]:
        with urllib.request.urlopen(f"http://{api.service.metrics_address}/metrics") as page:
            lines = [line for line in page.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    async def stored() -> dict[str, float] | None:
        found = await asyncio.to_thread(read)
        return found if found.get('tidewire_storage_stored_readings_total{tenant="acme"}') == 2 else None

    found = await until(stored)
    assert found["tidewire_storage_visible_seconds_count"] == 2
    assert found['tidewire_storage_visible_seconds_bucket{le="10.0"}'] == 2
    assert 0 < found["tidewire_storage_visible_seconds_sum"] < 20
    assert found["tidewire_storage_blocks_total"] == 1
    assert found["tidewire_storage_flush_seconds_count"] >= 1
    assert found["tidewire_storage_records_total"] == 1
    assert found["tidewire_ledger_difference_readings"] == 0
    (file,) = (api.path / "storage" / "blocks").glob("*.blk")
    file.unlink()

    async def missing() -> bool:
        return (await asyncio.to_thread(read))["tidewire_ledger_difference_readings"] == 2

    await until(missing)


async def test_run_sql_streams_arrow(api: Api, acme: TestTenant) -> None:
    device = api.world.add_device(acme, "pump-1")
    await api.publish(device, ["temp"], [(T0 + n * SECOND, [float(n)]) for n in range(10)])
    reader = api.as_(acme, Role.READER)

    def run(statement: str, parent: str = "tenants/acme"):
        return api.stub.RunSql(pb.RunSqlRequest(parent=parent, statement=statement), metadata=reader)

    async def stored() -> bool:
        answer = await api.stub.GetLatest(pb.GetLatestRequest(parent="tenants/acme"), metadata=reader)
        return bool(answer.values)

    await until(stored)
    parts = [part.arrow_ipc async for part in run("SELECT sum(value) AS total FROM readings WHERE value > 1")]
    assert pa.ipc.open_stream(b"".join(parts)).read_all().to_pydict() == {"total": [44.0]}
    for statement, parent, reason in (
        ("SET threads = 2", "tenants/acme", "SQL_REFUSED"),
        ("SELECT 1", "tenants/other", "OTHER_TENANT"),
    ):
        assert (await refused(collect(run(statement, parent))))[1] == reason

    def metrics() -> str:
        with urllib.request.urlopen(f"http://{api.service.metrics_address}/metrics") as page:
            return str(page.read().decode())

    text = await asyncio.to_thread(metrics)
    assert 'tidewire_storage_sql_statements_total{outcome="ok"} 1.0' in text
    assert "tidewire_storage_sql_scanned_readings_total 10.0" in text


OCTOBER, NOVEMBER = Date(year=2023, month=10), Date(year=2023, month=11)


async def test_report(api: Api, acme: TestTenant) -> None:
    reader = api.as_(acme, Role.READER)
    day = 86_400 * SECOND
    november = 1_698_796_800 * SECOND
    for name, site in (("a", "north"), ("b", "north"), ("c", "")):
        device = api.world.add_device(acme, name, labels={"site": site} if site else {})
        await api.publish(device, ["m"], [(november - 1, [1.0]), (november, [4.0]), (november + day, [8.0])])

    async def run(request: pb.ReportRequest) -> pb.ReportResponse:
        request.parent = "tenants/acme"
        parts = [part async for part in api.stub.Report(request, metadata=reader)]
        whole = pb.ReportResponse()
        for part in parts:  # of one part with rows
            assert not (whole.readings and part.readings)
            whole.MergeFrom(part)
        assert whole.progress == 1.0
        return whole

    async def stored() -> bool:
        answer = await api.stub.GetLatest(pb.GetLatestRequest(parent="tenants/acme"), metadata=reader)
        return len(answer.values) == 3

    await until(stored)
    months = pb.ReportRequest(
        start_date=Date(year=2023, month=10, day=31), end_date=Date(year=2023, month=11, day=3), devices=["b"]
    )
    found = [part async for part in api.stub.Report(_of_acme(months), metadata=reader)]
    rows = {
        part.period_start_unix_us[row]: (part.readings[row], part.avg[row], part.coverage[row])
        for part in found
        for row in range(len(part.readings))
    }
    assert rows == {november - day: (1, 1.0, 1.0), november: (2, 6.0, 1.0)}
    by_site = await run(pb.ReportRequest(month=NOVEMBER, group_by_label="site", metrics=["m"]))
    assert (list(by_site.subjects), list(by_site.metrics)) == (["", "north"], ["m"])
    assert list(by_site.readings) == [2, 4]
    assert list(by_site.devices) == list(by_site.active_devices) == [1, 2]
    assert list(by_site.active_days) == [2, 2]
    assert list(by_site.coverage) == pytest.approx([2 / 30, 2 / 30])
    assert list(by_site.first_time_unix_us) == [november, november]
    assert list(by_site.last) == [8.0, 8.0]
    assert by_site.estimated_bytes[1] == pytest.approx(2 * by_site.estimated_bytes[0])
    assert by_site.estimated_bytes[0] > 0
    assert by_site.tier == pb.RAW
    filtered = await run(pb.ReportRequest(month=OCTOBER, filter='labels.site = "north" AND name = "a"'))
    assert (list(filtered.subjects), list(filtered.readings)) == (["a"], [1])
    nothing = await run(pb.ReportRequest(month=Date(year=2023, month=9)))
    assert not nothing.readings

    def metrics() -> str:
        with urllib.request.urlopen(f"http://{api.service.metrics_address}/metrics") as page:
            return str(page.read().decode())

    assert 'tidewire_storage_reports_total{outcome="ok"} 4.0' in await asyncio.to_thread(metrics)


def _of_acme(request: pb.ReportRequest) -> pb.ReportRequest:
    request.parent = "tenants/acme"
    return request


@pytest.mark.parametrize(
    ("request_", "reason", "told"),
    [
        ({}, "INVALID_ARGUMENT", "start_date: is missing"),
        ({"start_date": OCTOBER}, "INVALID_ARGUMENT", "end_date: is missing"),
        ({"month": OCTOBER, "end_date": NOVEMBER}, "INVALID_ARGUMENT", "leave one of them out"),
        ({"month": Date(year=2023, month=13)}, "INVALID_ARGUMENT", "month: 2023-13-0 is no date"),
        ({"month": Date(month=1)}, "INVALID_ARGUMENT", "month: 0-1-0 is no date"),
        ({"month": Date(year=9999, month=12)}, "INVALID_ARGUMENT", "earlier"),
        ({"month": Date(year=2023, month=1, day=1)}, "INVALID_ARGUMENT", "month: has a day"),
        ({"start_date": NOVEMBER, "end_date": OCTOBER}, "INVALID_ARGUMENT", "end_date: is not after"),
        (
            {"start_date": Date(year=2023, month=2, day=29), "end_date": NOVEMBER},
            "INVALID_ARGUMENT",
            "start_date: 2023-2-29",
        ),
        ({"start_date": Date(year=2022, month=10), "end_date": NOVEMBER}, "INVALID_ARGUMENT", "at most 366"),
        ({"month": OCTOBER, "granularity": 7}, "INVALID_ARGUMENT", "granularity"),
        ({"month": OCTOBER, "group_by_label": "A b"}, "INVALID_ARGUMENT", "group_by_label"),
        ({"month": OCTOBER, "metrics": ["A"]}, "INVALID_ARGUMENT", "metrics[0]"),
        ({"month": OCTOBER, "devices": ["a"], "filter": 'name = "a"'}, "FILTER_INVALID", "filter"),
        ({"month": OCTOBER, "filter": "name ="}, "FILTER_INVALID", "filter"),
        ({"month": OCTOBER, "devices": ["theirs"]}, "NOT_FOUND", "tenants/acme/devices/theirs"),
        ({"month": OCTOBER, "parent": "tenants/other"}, "OTHER_TENANT", "tenant"),
    ],
)
async def test_report_refuses(
    api: Api, acme: TestTenant, request_: dict[str, object], reason: str, told: str
) -> None:
    api.world.add_device(api.world.add_tenant("other"), "theirs")
    api.world.add_device(acme, "a")
    request = pb.ReportRequest(**{"parent": "tenants/acme", **request_})  # type: ignore[arg-type]
    call = api.stub.Report(request, metadata=api.as_(acme, Role.READER))
    _, found, message = await refused(collect(call))
    assert found == reason
    assert told in message
