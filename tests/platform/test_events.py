"""Events go in by the command and come out of the list, once, for their own tenant, also after a restart."""

import json
import time
from pathlib import Path

import pytest

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire.storage.v1 import storage_pb2
from tidewire.type.v1 import event_pb2
from tidewire_testkit.whole.platform import TenantAccess, UpProcess, running, until

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]


async def listed(up: UpProcess, access: TenantAccess, **wanted: object) -> list[event_pb2.Event]:
    """All events by as many pages as it takes."""
    request = storage_pb2.ListEventsRequest(parent=access.name, **wanted)  # type: ignore[arg-type]
    found: list[event_pb2.Event] = []
    while True:
        page = await up.storage().ListEvents(request, metadata=access.metadata, timeout=10)
        found += page.events
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


def event(device: str, kind: str, at_us: int, **fields: object) -> event_pb2.Event:
    made = event_pb2.Event(device=device, type=kind, **fields)  # type: ignore[arg-type]
    made.time.FromMicroseconds(at_us)
    return made


async def test_events_are_listed_newest_first_once_and_for_their_own_tenant(up: UpProcess) -> None:
    access, other = await up.create_tenant("events"), await up.create_tenant("other-events")
    await up.create_devices(access, "door", "pump")
    await up.create_devices(other, "door")
    now = time.time_ns() // 1000
    events = [
        event("door", "door.opened", now - 3, severity=event_pb2.INFO, body=b"\xff\x00", content_type="x/y"),
        event("pump", "pump.dry", now - 2, severity=event_pb2.ERROR, body=b"x" * (256 << 10)),
        event("nobody", "door.opened", now),
        event("door", "Bad Type", now),
        event("door", "door.opened", now + 3_600_000_000),
        event("door", "door.opened", now, body=b"x" * ((256 << 10) + 1)),
        event("door", "door.opened", now - 1, event_id="mine"),
    ]
    request = ingestion_pb2.PublishEventsRequest(
        batch_id="6a2b1f7e-3b0e-4e52-8f83-0d5c8a1f2c33", events=events
    )
    for _ in range(2):
        answer = await up.ingestion().PublishEvents(request, metadata=access.metadata, timeout=10)
        assert answer.accepted_events == 3
        refused = {
            ingestion_pb2.RefusalReason.Name(one.reason): list(one.positions) for one in answer.refusals
        }
        assert refused == {"DEVICE_UNKNOWN": [2], "BAD_EVENT": [3], "CLOCK_SKEW": [4], "BODY_TOO_LARGE": [5]}

    async def all_there() -> bool:
        return len(await listed(up, access)) >= 3

    await until(all_there, "the events are visible")
    found = await listed(up, access)
    assert [one.type for one in found] == ["door.opened", "pump.dry", "door.opened"]
    assert found[0].event_id == "mine"
    assert [one.body for one in found] == [events[6].body, events[1].body, events[0].body]
    assert [one.time for one in found] == [events[6].time, events[1].time, events[0].time]
    assert found[2].content_type == "x/y"
    assert await listed(up, access, page_size=1) == found
    assert await listed(up, access, devices=["door"]) == [found[0], found[2]]
    assert await listed(up, access, type="pump.dry") == [found[1]]
    assert await listed(up, access, min_severity=event_pb2.WARN) == [found[1]]
    assert await listed(up, access, start_time=events[1].time, end_time=events[6].time) == [found[1]]
    assert await listed(up, other) == []


async def test_events_by_the_command_outlive_a_restart(data_dir: Path) -> None:
    async with running(data_dir) as up:
        access = await up.create_tenant("plant")
        environ = ("--tenant", access.name.removeprefix("tenants/"), "--output", "json")
        text = tmp_text(data_dir)
        result = await up.command(
            "event", "publish", "door", "door.opened", "--create", "--file", str(text), *environ
        )
        assert result.status == 0, result.err
        result = await up.command("event", "publish", "door", "door.shut", "--severity", "WARN", *environ)
        assert json.loads(result.out)["accepted_events"] == 1
        result = await up.command("event", "publish", "none", "door.shut", *environ)
        assert (result.status, "DEVICE_UNKNOWN" in result.err) == (4, True)

        async def two() -> list[dict[str, str]] | None:
            shown = json.loads((await up.command("event", "list", *environ)).out)
            return shown if len(shown) == 2 else None

        before = await until(two, "both events are visible")
        assert [(one["type"], one["severity"], one["body"]) for one in before] == [
            ("door.shut", "WARN", ""),
            ("door.opened", "INFO", "somebody came\n"),
        ]
        assert before[1]["content_type"] == "text/plain"
    async with running(data_dir) as up:
        assert json.loads((await up.command("event", "list", *environ)).out) == before
        result = await up.command("event", "list", "--severity", "WARN", *environ)
        assert json.loads(result.out) == before[:1]


def tmp_text(data_dir: Path) -> Path:
    path = data_dir.parent / "note.txt"
    path.write_text("somebody came\n")
    return path
