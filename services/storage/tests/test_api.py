"""The service as a client meets it: real server, real tokens, real log."""

import asyncio
import dataclasses
import math
import urllib.request
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from google.type.date_pb2 import Date
from grpc import aio
from grpc_status import rpc_status

from tidewire.storage.v1 import storage_pb2 as pb
from tidewire.storage.v1.storage_pb2_grpc import StorageServiceStub
from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.identity import Role
from tidewire_kit.ids import partition_of
from tidewire_kit.service import RunningService, running_service
from tidewire_kit.settings import CommonSettings
from tidewire_storage.access import ACCESS
from tidewire_storage.main import build
from tidewire_storage.settings import Settings
from tidewire_testkit.access_table import walk_access_table
from tidewire_testkit.directory import TestDevice, TestTenant, World, device_change, key_change
from tidewire_testkit.polling import until
from tidewire_testkit.telemetry import make_table, put_tables

NAN = math.nan
SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND


class Api:
    """A running service, a tenant with devices, and stubs' metadata."""

    def __init__(self, service: RunningService, stub: StorageServiceStub, path: Path) -> None:
        self.path = path
        self.service = service
        self.stub = stub
        self.world = World(SystemClock(), 4)
        self.world.directory = service.directory  # what the world adds, the service knows
        self.world.heartbeat()
        service.directory.apply(key_change(self.world.signer))

    def as_(self, tenant: TestTenant | None, *roles: Role) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.world.token(tenant, *roles)}"),)

    async def publish(
        self, device: TestDevice, metrics: list[str], rows: list[tuple[int, list[float]]]
    ) -> None:
        log = self.service.log
        table = make_table(
            device.tenant.uid,
            metrics,
            [(device.uid, time, values) for time, values in rows],
            received_us=SystemClock().now_us(),
        )
        partition = partition_of(device.tenant.uid, device.uid, log.partitions(topics.TELEMETRY))
        await put_tables(log, partition, table)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    common = dataclasses.replace(CommonSettings(data_dir=tmp_path), partitions=4)
    settings = Settings(port=0, metrics_port=0, flush_seconds=0.05, purge_seconds=0.1, recount_seconds=0.1)
    async with (
        running_service("storage", settings, common, build, device_facts=True) as service,
        aio.insecure_channel(service.address) as channel,
    ):
        yield Api(service, StorageServiceStub(channel), tmp_path)


@pytest.fixture
def acme(api: Api) -> TestTenant:
    return api.world.add_tenant("acme")


def stamp(us: int) -> Timestamp:
    message = Timestamp()
    message.FromMicroseconds(us)
    return message


async def refused(call) -> tuple[grpc.StatusCode, str, str]:
    """(code, reason, message) of a failing call."""
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    details = rpc_status.from_call(caught.value).details
    info = error_details_pb2.ErrorInfo()
    assert details[0].Unpack(info)
    return caught.value.code(), info.reason, caught.value.details() or ""


async def collect(stream) -> list[pb.ReadSeriesResponse]:
    return [part async for part in stream]


async def test_who_may_call() -> None:
    await walk_access_table(pb.DESCRIPTOR.services_by_name["StorageService"], ACCESS)


async def test_series_latest_and_list(api: Api, acme: TestTenant) -> None:
    device = api.world.add_device(acme, "pump-1")
    reader = api.as_(acme, Role.READER)
    await api.publish(device, ["temp", "level"], [(T0, [1.0, NAN]), (T0 + SECOND, [2.0, 20.0])])

    async def latest() -> list[pb.LatestValue]:
        answer = await api.stub.GetLatest(pb.GetLatestRequest(parent="tenants/acme"), metadata=reader)
        return list(answer.values)

    values = await until(latest)
    assert [(v.device, v.metric, v.time_unix_us, v.value) for v in values] == [
        ("pump-1", "level", T0 + SECOND, 20.0),
        ("pump-1", "temp", T0 + SECOND, 2.0),
    ]
    listed = await api.stub.ListSeries(pb.ListSeriesRequest(parent="tenants/acme"), metadata=reader)
    assert [(s.metric, s.first_time.ToMicroseconds()) for s in listed.series] == [
        ("level", T0 + SECOND),
        ("temp", T0),
    ]
    (part,) = await collect(
        api.stub.ReadSeries(pb.ReadSeriesRequest(device="tenants/acme/devices/pump-1"), metadata=reader)
    )
    assert part.columns.device == "tenants/acme/devices/pump-1"
    assert list(part.columns.metrics) == ["level", "temp"]
    assert list(part.columns.time_unix_us) == [T0, T0 + SECOND]
    assert math.isnan(part.columns.values[0])
    assert list(part.columns.values)[1:] == [20.0, 1.0, 2.0]
    assert part.next_page_token == ""


async def test_read_series_in_parts_and_pages(api: Api, acme: TestTenant) -> None:
    device = api.world.add_device(acme, "a")
    reader = api.as_(acme, Role.READER)
    total = 25_000
    for first in range(0, total, 5_000):
        await api.publish(device, ["m"], [(T0 + n, [float(n)]) for n in range(first, first + 5_000)])
    name = "tenants/acme/devices/a"

    async def all_there() -> list[pb.ReadSeriesResponse]:
        parts = await collect(api.stub.ReadSeries(pb.ReadSeriesRequest(device=name), metadata=reader))
        return parts if sum(len(part.columns.time_unix_us) for part in parts) == total else []

    parts = await until(all_there, seconds=20)
    assert all(len(part.columns.time_unix_us) <= 10_000 for part in parts)
    times = [time for part in parts for time in part.columns.time_unix_us]
    assert times == [T0 + n for n in range(total)]

    paged: list[int] = []
    token = ""
    pages = 0
    while True:
        request = pb.ReadSeriesRequest(device=name, max_rows=7_000, page_token=token)
        page = await collect(api.stub.ReadSeries(request, metadata=reader))
        rows = [time for part in page for time in part.columns.time_unix_us]
        assert len(rows) <= 7_000
        assert all(part.next_page_token == "" for part in page[:-1])
        paged += rows
        pages += 1
        token = page[-1].next_page_token
        if not token:
            break
    assert (paged, pages) == (times, 4)
    (first,) = await collect(
        api.stub.ReadSeries(pb.ReadSeriesRequest(device=name, max_rows=10), metadata=reader)
    )
    smaller = pb.ReadSeriesRequest(device=name, max_rows=3, page_token=first.next_page_token)
    (second,) = await collect(api.stub.ReadSeries(smaller, metadata=reader))
    assert list(second.columns.time_unix_us) == times[10:13], "the size of a page may change"
    exact = pb.ReadSeriesRequest(device=name, max_rows=total)
    page = await collect(api.stub.ReadSeries(exact, metadata=reader))
    assert page[-1].next_page_token == "", "nothing follows the last row"


async def test_aggregate(api: Api, acme: TestTenant) -> None:
    a, b = api.world.add_device(acme, "a"), api.world.add_device(acme, "b")
    reader = api.as_(acme, Role.READER)
    minute = 60 * SECOND
    base = T0 - T0 % minute
    await api.publish(
        a, ["m"], [(base + 1, [1.0]), (base + 2, [3.0]), (base + minute, [10.0]), (base + 2, [5.0])]
    )
    await api.publish(b, ["m"], [(base + 3, [7.0])])
    request = pb.AggregateRequest(
        parent="tenants/acme",
        devices=["b", "a"],
        metrics=["m", "absent"],
        functions=[pb.COUNT, pb.MIN, pb.MAX, pb.AVG, pb.SUM, pb.FIRST, pb.LAST, pb.STDDEV],
        bucket_duration=Duration(seconds=60),
    )

    async def both() -> list[pb.AggregateSeries]:
        answer = await api.stub.Aggregate(request, metadata=reader)
        return list(answer.series) if len(answer.series) == 2 else []

    one, two = await until(both)
    assert (one.device, list(one.bucket_start_unix_us)) == ("a", [base, base + minute])
    assert [list(column.values) for column in one.columns] == [
        [2, 1], [1, 10], [5, 10], [3, 10], [6, 10], [1, 10], [5, 10], [2, 0]
    ]  # fmt: skip
    assert (two.device, list(two.bucket_start_unix_us)) == ("b", [base])
    request.across_devices = True
    (across,) = (await api.stub.Aggregate(request, metadata=reader)).series
    assert across.device == ""
    assert [column.values[0] for column in across.columns[:7]] == [3, 1, 7, 13 / 3, 13, 1, 7]
    assert across.columns[7].values[0] == pytest.approx(math.sqrt(56 / 9))
    request.ClearField("bucket_duration")
    request.start_time.CopyFrom(stamp(base))
    (whole,) = (await api.stub.Aggregate(request, metadata=reader)).series
    assert list(whole.bucket_start_unix_us) == [base]
    assert whole.columns[0].values[0] == 4


async def test_latest_is_paged_by_device_and_metric(api: Api, acme: TestTenant) -> None:
    reader = api.as_(acme, Role.READER)
    expected = []
    for number in range(12):
        device = api.world.add_device(acme, f"d{number:02}")
        await api.publish(device, ["x", "y"], [(T0, [float(number), -1.0])])
        expected += [(device.id, "x"), (device.id, "y")]
    request = pb.GetLatestRequest(parent="tenants/acme", page_size=5)

    async def everything() -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        request.page_token = ""
        while True:
            page = await api.stub.GetLatest(request, metadata=reader)
            assert len(page.values) <= 5
            found += [(value.device, value.metric) for value in page.values]
            request.page_token = page.next_page_token
            if not request.page_token:
                return found if len(found) == 24 else []

    assert await until(everything) == expected
    few = pb.GetLatestRequest(parent="tenants/acme", devices=["d03", "d01"], metrics=["y"])
    page = await api.stub.GetLatest(few, metadata=reader)
    assert [(value.device, value.metric) for value in page.values] == [("d01", "y"), ("d03", "y")]


async def test_bad_arguments_name_the_field_and_the_remedy(api: Api, acme: TestTenant) -> None:
    api.world.add_device(acme, "a")
    reader = api.as_(acme, Role.READER)
    name = "tenants/acme/devices/a"
    series = pb.ReadSeriesRequest
    aggregate = {"parent": "tenants/acme", "devices": ["a"], "metrics": ["m"], "functions": [pb.COUNT]}
    cases = [
        ("end_time", series(device=name, start_time=stamp(T0), end_time=stamp(T0))),
        ("start_time", series(device=name, start_time=Timestamp(seconds=1 << 60))),
        ("metrics[1]", series(device=name, metrics=["m", "Bad Metric"])),
        ("max_rows", series(device=name, max_rows=-1)),
        ("page_token", series(device=name, page_token="?!")),
        ("page_token", series(device=name, page_token="AAAAAAAAAAAAAAAA")),
        ("page_size", pb.GetLatestRequest(parent="tenants/acme", page_size=-1)),
        ("devices[0]", pb.GetLatestRequest(parent="tenants/acme", devices=["-"])),
        ("filter", pb.AggregateRequest(**aggregate, filter="type = pump")),
        ("filter", pb.AggregateRequest(**{**aggregate, "devices": []}, filter="type = ")),
        ("filter", pb.GetLatestRequest(parent="tenants/acme", devices=["a"], filter="type = pump")),
        ("filter", pb.GetLatestRequest(parent="tenants/acme", filter="site = north")),
        ("filter", pb.ListSeriesRequest(parent="tenants/acme", devices=["a"], filter="type = pump")),
        ("filter", pb.ListSeriesRequest(parent="tenants/acme", filter="labels.site < *")),
        ("group_by_label", pb.AggregateRequest(**aggregate, group_by_label="Site")),
        ("group_by_label", pb.AggregateRequest(**aggregate, group_by_label="site", across_devices=True)),
        ("metrics", pb.AggregateRequest(**{**aggregate, "metrics": []})),
        ("functions", pb.AggregateRequest(**{**aggregate, "functions": []})),
        ("functions[0]", pb.AggregateRequest(**{**aggregate, "functions": [0]})),
        ("functions[1]", pb.AggregateRequest(**{**aggregate, "functions": [pb.MIN, pb.MIN]})),
        ("bucket_duration", pb.AggregateRequest(**aggregate, bucket_duration=Duration(nanos=5))),
        ("devices", pb.AggregateRequest(**{**aggregate, "devices": ["a"] * 10_001})),
        ("device", series(device="tenants/acme/sensors/a")),
    ]
    methods = {
        pb.ReadSeriesRequest: lambda r, metadata: collect(api.stub.ReadSeries(r, metadata=metadata)),
        pb.GetLatestRequest: api.stub.GetLatest,
        pb.ListSeriesRequest: api.stub.ListSeries,
        pb.AggregateRequest: api.stub.Aggregate,
    }
    for field, request in cases:
        code, _, message = await refused(methods[type(request)](request, metadata=reader))
        assert code == grpc.StatusCode.INVALID_ARGUMENT, field
        assert message.startswith(f"{field}: "), message


async def test_a_filter_selects_devices_and_a_label_groups_them(api: Api, acme: TestTenant) -> None:
    world, reader = api.world, api.as_(acme, Role.READER)
    for number, (site, values) in enumerate(
        {"north": [1.0, 2.0], "south": [5.0], "": [9.0]}.items(),
    ):
        for row, value in enumerate(values):
            labels = {"site": site} if site else {}
            device = world.add_device(
                acme, f"d{number}{row}", type="pump" if site else "valve", labels=labels
            )
            await api.publish(device, ["m"], [(T0, [value])])
    other = world.add_tenant("other")
    theirs = world.add_device(other, "theirs", type="pump", labels={"site": "north"})
    await api.publish(theirs, ["m"], [(T0, [100.0])])

    async def latest(filter_text: str, **more: object) -> list[str]:
        request = pb.GetLatestRequest(parent="tenants/acme", filter=filter_text, **more)
        return [value.device for value in (await api.stub.GetLatest(request, metadata=reader)).values]

    await until(lambda: _has(latest(""), ["d00", "d01", "d10", "d20"]))
    assert await latest("labels.site = north") == ["d00", "d01"]
    assert await latest('type = pump AND NOT name = "tenants/acme/devices/d00"') == ["d01", "d10"]
    assert await latest("labels.site = west") == []
    listed = pb.ListSeriesRequest(parent="tenants/acme", filter="type = valve")
    assert [one.device for one in (await api.stub.ListSeries(listed, metadata=reader)).series] == ["d20"]
    page = pb.GetLatestRequest(parent="tenants/acme", filter="type = pump", page_size=1)
    answer = await api.stub.GetLatest(page, metadata=reader)
    page.page_token, page.page_size = answer.next_page_token, 5
    answer = await api.stub.GetLatest(page, metadata=reader)
    assert [value.device for value in answer.values] == ["d01", "d10"]
    page.filter = "type = valve"
    code, _, message = await refused(api.stub.GetLatest(page, metadata=reader))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "other arguments" in message
    code, reason, message = await refused(
        api.stub.GetLatest(pb.GetLatestRequest(parent="tenants/acme", filter="type = a AND"), metadata=reader)
    )
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FILTER_INVALID")
    assert "at position 13" in message

    request = pb.AggregateRequest(
        parent="tenants/acme", metrics=["m"], functions=[pb.P50, pb.COUNT, pb.P99], group_by_label="site"
    )
    grouped = await api.stub.Aggregate(request, metadata=reader)
    assert grouped.tier == pb.RAW
    assert [one.device for one in grouped.series] == ["", "", ""]
    assert {one.group: [list(column.values) for column in one.columns] for one in grouped.series} == {
        "": [[9.0], [1.0], [9.0]],
        "north": [[1.5], [2.0], [1.99]],
        "south": [[5.0], [1.0], [5.0]],
    }
    request = pb.AggregateRequest(
        parent="tenants/acme", metrics=["m"], functions=[pb.SUM], filter="type = pump"
    )
    by_device = await api.stub.Aggregate(request, metadata=reader)
    assert [(one.device, one.columns[0].values[0]) for one in by_device.series] == [
        ("d00", 1.0),
        ("d01", 2.0),
        ("d10", 5.0),
    ]
    request.across_devices = True
    (across,) = (await api.stub.Aggregate(request, metadata=reader)).series
    assert (across.device, across.group, across.columns[0].values[0]) == ("", "", 8.0)
    request.filter = "labels.site = west"
    assert not (await api.stub.Aggregate(request, metadata=reader)).series
    moved = world.add_device(acme, "d30", labels={"site": "west"})
    await api.publish(moved, ["m"], [(T0, [3.0])])

    async def of_west() -> list[float]:
        series = (await api.stub.Aggregate(request, metadata=reader)).series
        return [one.columns[0].values[0] for one in series]

    assert await until(of_west) == [3.0]
    moved.labels, moved.revision = {"site": "south"}, 2
    world.directory.apply(device_change(moved, world.clock))
    assert await of_west() == [], "a label that changes counts at once"


async def _has(given: Awaitable[list[str]], expected: list[str]) -> bool:
    return await given == expected


async def test_a_token_of_a_page_belongs_to_its_question(api: Api, acme: TestTenant) -> None:
    reader = api.as_(acme, Role.READER)
    for number in range(3):
        await api.publish(api.world.add_device(acme, f"d{number}"), ["x"], [(T0, [1.0])])

    async def page() -> str:
        request = pb.ListSeriesRequest(parent="tenants/acme", page_size=1)
        return (await api.stub.ListSeries(request, metadata=reader)).next_page_token

    token = await until(page)
    other = pb.ListSeriesRequest(parent="tenants/acme", devices=["d1"], page_token=token)
    code, _, message = await refused(api.stub.ListSeries(other, metadata=reader))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "other arguments" in message


async def test_tenants_do_not_see_one_another(api: Api, acme: TestTenant) -> None:
    rival = api.world.add_tenant("rival")
    theirs = api.world.add_device(rival, "secret")
    await api.publish(theirs, ["m"], [(T0, [1.0])])
    mine = api.as_(acme, Role.TENANT_ADMIN)
    rivals = api.as_(rival, Role.READER)

    async def visible() -> bool:
        request = pb.GetLatestRequest(parent="tenants/rival")
        return len((await api.stub.GetLatest(request, metadata=rivals)).values) == 1

    await until(visible)
    denied = [
        api.stub.GetLatest(pb.GetLatestRequest(parent="tenants/rival"), metadata=mine),
        api.stub.ListSeries(pb.ListSeriesRequest(parent="tenants/rival"), metadata=mine),
        collect(
            api.stub.ReadSeries(pb.ReadSeriesRequest(device="tenants/rival/devices/secret"), metadata=mine)
        ),
        collect(api.stub.ReadSeries(pb.ReadSeriesRequest(device="tenants/nobody/devices/x"), metadata=mine)),
        api.stub.GetLedger(pb.GetLedgerRequest(tenant="tenants/rival"), metadata=mine),
        api.stub.GetLedger(pb.GetLedgerRequest(), metadata=mine),
        api.stub.GetStorageUsage(pb.GetStorageUsageRequest(), metadata=mine),
        api.stub.SealEpochs(pb.SealEpochsRequest(), metadata=mine),
    ]
    for call in denied:
        code, _, _ = await refused(call)
        assert code == grpc.StatusCode.PERMISSION_DENIED
    missing = pb.ReadSeriesRequest(device="tenants/acme/devices/secret")
    code, _, message = await refused(collect(api.stub.ReadSeries(missing, metadata=mine)))
    assert code == grpc.StatusCode.NOT_FOUND
    assert "tenants/acme/devices/secret" in message
    assert not (await api.stub.GetLatest(pb.GetLatestRequest(parent="tenants/acme"), metadata=mine)).values


async def test_ledger_usage_and_cut(api: Api, acme: TestTenant) -> None:
    device = api.world.add_device(acme, "a")
    admin = api.as_(None, Role.PLATFORM_ADMIN)
    await api.publish(device, ["m", "n"], [(T0, [1.0, 2.0]), (T0 + 1, [1.0, NAN])])

    async def stored() -> pb.GetLedgerResponse | None:
        answer = await api.stub.GetLedger(pb.GetLedgerRequest(tenant="tenants/acme"), metadata=admin)
        return answer if answer.lag_records == 0 and answer.entries else None

    answer = await until(stored)
    (entry,) = answer.entries
    assert (entry.tenant, entry.accepted_readings, entry.stored_readings, entry.present_readings) == (
        "tenants/acme",
        3,
        3,
        3,
    )
    assert answer.difference_readings == 0
    assert answer.in_flight_readings == 0
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
