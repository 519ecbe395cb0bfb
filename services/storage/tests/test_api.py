"""The service as a client meets it: real server, real tokens, real log."""

import math
from collections.abc import Awaitable

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from storage_api import NAN, SECOND, T0, Api, collect, refused, stamp

from tidewire.storage.v1 import storage_pb2 as pb
from tidewire_kit.identity import Role
from tidewire_storage.access import ACCESS
from tidewire_testkit.access_table import walk_access_table
from tidewire_testkit.directory import TestTenant, device_change
from tidewire_testkit.polling import until


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
