"""Full disks, failing disks, damaged files, newer formats: the log refuses, says what to do, and recovers by itself."""

import errno
import os
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidewire_kit.errors import FailedPrecondition, Unavailable
from tidewire_kit.log import LogCorrupt, LogFull, Outgoing, TopicSpec
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_testkit.log_contract import MessageLogFactory, RecordingHandler
from tidewire_testkit.polling import until

TOPIC = "faults.v1"
GROUP = "tidewire.storage"
KILOBYTE = bytes(1024)


class Disk:
    """What the settings ask instead of the real disk."""

    def __init__(self) -> None:
        self.free = 1 << 40
        self.boot = "boot-1"
        self.now_us = 1_700_000_000_000_000

    def free_bytes(self, _path: Path) -> int:
        return self.free


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def log_settings(disk: Disk) -> EmbeddedLogSettings:
    return EmbeddedLogSettings(
        segment_bytes=20_000,
        preallocate_bytes=4096,
        log_cap_bytes=100_000,
        min_free_bytes=1 << 20,
        maintenance_seconds=3600,
        retry_delay_seconds=2.5,
        free_bytes=disk.free_bytes,
        boot_id=lambda: disk.boot,
        clock_us=lambda: disk.now_us,
    )


@pytest.fixture
async def log(message_log_factory: MessageLogFactory) -> EmbeddedLog:
    opened = await message_log_factory()
    assert isinstance(opened, EmbeddedLog)
    await opened.ensure_topics([TopicSpec(TOPIC, partitions=2, retention_seconds=3600)])
    return opened


async def produce(log: EmbeddedLog, count: int = 1, partition: int = 0) -> None:
    for _ in range(count):
        await log.produce(TOPIC, [Outgoing(partition, b"", [KILOBYTE])])


async def commit_all(log: EmbeddedLog, group: str = GROUP) -> None:
    consumer = await log.consume(group, [TOPIC], RecordingHandler())
    await until(lambda: _poll(consumer, 2))
    await consumer.commit({(TOPIC, p): end for p, end in enumerate(await log.end_offsets(TOPIC))})
    await consumer.close()


async def _poll(consumer: object, partitions: int) -> bool:
    await consumer.poll(0)  # type: ignore[attr-defined]
    return len(consumer.assignment) == partitions  # type: ignore[attr-defined]


def only_file(directory: Path, pattern: str) -> Path:
    (path,) = (directory / "log" / TOPIC).glob(pattern)
    return path


# Room


async def test_at_the_floor_of_free_disk_it_refuses_until_space_returns(log: EmbeddedLog, disk: Disk) -> None:
    await produce(log)
    disk.free = 100
    await until(lambda: refuses(log), message="refused")
    with pytest.raises(LogFull, match="free some space") as refused:
        await produce(log)
    assert refused.value.retry_delay_seconds == 2.5
    assert refused.value.reason == "LOG_FULL"
    end = (await log.end_offsets(TOPIC))[0]
    disk.free = 1 << 40
    await produce(log)
    assert (await log.end_offsets(TOPIC))[0] == end + 1


async def refuses(log: EmbeddedLog) -> bool:
    try:
        await produce(log)
    except LogFull:
        return True
    return False


async def test_at_the_cap_it_refuses_while_a_holder_has_not_committed(log: EmbeddedLog) -> None:
    consumer = await log.consume(GROUP, [TOPIC], RecordingHandler())
    with pytest.raises(LogFull, match="have not finished"):
        await produce(log, 200)
    kept = (await log.end_offsets(TOPIC))[0]
    assert 80 <= kept <= 100
    assert await log.begin_offsets(TOPIC) == [0, 0]
    await until(lambda: _poll(consumer, 2))
    await consumer.commit({(TOPIC, 0): kept})
    await produce(log, 60)  # each makes the room that it needs
    begin = (await log.begin_offsets(TOPIC))[0]
    assert 0 < begin <= kept


async def test_at_the_cap_the_uncommitted_rest_stays(log: EmbeddedLog) -> None:
    consumer = await log.consume(GROUP, [TOPIC], RecordingHandler())
    await produce(log, 60)
    await until(lambda: _poll(consumer, 2))
    await consumer.commit({(TOPIC, 0): 30})
    with pytest.raises(LogFull):
        await produce(log, 300)
    begin = (await log.begin_offsets(TOPIC))[0]
    assert 0 < begin <= 30
    found = await log.read(TOPIC, 0, 0, max_bytes=1 << 30)
    assert [r.offset for r in found] == list(range(begin, (await log.end_offsets(TOPIC))[0]))


async def test_at_the_cap_it_refuses_while_a_group_that_it_is_held_for_has_never_come(
    message_log_factory: MessageLogFactory,
) -> None:
    """As when storage fails at the platform's first start: what is acknowledged stays until it has been stored."""
    log = await message_log_factory()
    await log.ensure_topics([TopicSpec(TOPIC, partitions=2, held_for=(GROUP,))])
    with pytest.raises(LogFull, match="have not finished"):
        await produce(log, 200)
    assert await log.begin_offsets(TOPIC) == [0, 0]


async def test_at_the_cap_a_record_can_still_be_set_aside(log: EmbeddedLog) -> None:
    """Otherwise a poison record there would stop its consumer, and with it all that makes room."""
    await log.ensure_topics([TopicSpec("letters", partitions=1, may_exceed_cap=True)])
    await log.consume(GROUP, [TOPIC], RecordingHandler())
    with pytest.raises(LogFull):
        await produce(log, 200)
    await log.produce("letters", [Outgoing(0, b"", [KILOBYTE])])
    with pytest.raises(LogFull):
        await produce(log)
    assert len(await log.read("letters", 0, 0)) == 1


async def test_groups_that_hold_nothing_do_not_stop_the_log(log: EmbeddedLog) -> None:
    consumer = await log.consume("tidewire.routing", [TOPIC], RecordingHandler())
    await until(lambda: _poll(consumer, 2))
    await produce(log, 300)
    begin = (await log.begin_offsets(TOPIC))[0]
    assert begin > 0
    found = await consumer.poll(1)
    assert found[0].offset >= begin, "the gap shows in the offsets"


async def test_a_log_of_many_small_topics_finds_room_in_their_open_segments(log: EmbeddedLog) -> None:
    topics = [f"small-{n}.v1" for n in range(8)]
    await log.ensure_topics([TopicSpec(topic, partitions=1) for topic in topics])
    for _ in range(3):
        for topic in topics:
            await log.produce(topic, [Outgoing(0, b"", [KILOBYTE * 10])])
    ends = [(await log.end_offsets(topic))[0] for topic in topics]
    assert ends == [3] * 8


async def test_age_removes_committed_segments_only(log: EmbeddedLog, disk: Disk) -> None:
    await commit_all(log)
    await produce(log, 30)
    disk.now_us += 2 * 3600 * 1_000_000
    await produce(log, 30, partition=1)
    log._retention.expire()
    assert await log.begin_offsets(TOPIC) == [0, 0]
    await commit_all(log)
    log._retention.expire()
    begin = await log.begin_offsets(TOPIC)
    assert 0 < begin[0] <= 30
    assert begin[1] <= 20, "young records stay"
    disk.now_us += 2 * 3600 * 1_000_000
    await produce(log, 1)
    log._retention.expire()
    assert (await log.begin_offsets(TOPIC))[1] > begin[1]


async def test_the_records_of_a_quiet_topic_expire_too(log: EmbeddedLog, disk: Disk) -> None:
    await produce(log, 3)
    await commit_all(log)
    for minutes, expected in ((10, 0), (20, 0), (50, 0), (60, 3)):
        disk.now_us += minutes * 60_000_000
        log._retention.expire()
        assert (await log.begin_offsets(TOPIC))[0] == expected
    await produce(log)
    assert [r.offset for r in await log.read(TOPIC, 0, 0)] == [3]


@pytest.fixture
def small_files() -> Iterator[None]:
    """Lets no file of this process grow beyond 256 KiB: a disk that is really full, for whoever writes more."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


async def test_a_write_that_does_not_fit_is_taken_back(tmp_path: Path, small_files: None) -> None:
    log = EmbeddedLog(
        tmp_path, EmbeddedLogSettings(min_free_bytes=0, preallocate_bytes=4096, cached_segments=1)
    )
    await log.start()
    await log.ensure_topics([TopicSpec(TOPIC, partitions=2)])
    acknowledged: list[int] = []

    async def fill() -> None:
        while True:
            acknowledged.extend(await log.produce(TOPIC, [Outgoing(0, b"", [KILOBYTE * 7])]))

    with pytest.raises(LogFull, match="no space"):
        await fill()
    for _ in range(3):
        with pytest.raises(LogFull):
            await log.produce(TOPIC, [Outgoing(0, b"", [KILOBYTE * 100])])
    assert [r.offset for r in await log.read(TOPIC, 0, 0, max_bytes=1 << 30)] == acknowledged
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert await log.produce(TOPIC, [Outgoing(0, b"", [KILOBYTE * 100])]) == [len(acknowledged)]
    await log.close()


# Disks that fail


async def test_after_a_failed_sync_nothing_unsynced_is_acknowledged_or_seen(
    log: EmbeddedLog, message_log_factory: MessageLogFactory
) -> None:
    other = await message_log_factory()
    await other.ensure_topics([TopicSpec(TOPIC, partitions=2)])
    await produce(log, 3)
    appender = log._streams[TOPIC].appender
    works, appender.sync_function = appender.sync_function, failing(errno.EIO)
    with pytest.raises(Unavailable, match="cannot write"):
        await produce(log)
    appender.sync_function = failing(errno.ENOSPC)
    with pytest.raises(LogFull):
        await produce(log)
    assert await log.end_offsets(TOPIC) == [3, 0]
    assert isinstance(other, EmbeddedLog)
    await produce(other)
    appender.sync_function = works
    await produce(log)
    assert [r.offset for r in await other.read(TOPIC, 0, 0)] == [0, 1, 2, 3, 4]


def failing(number: int):  # type: ignore[no-untyped-def]
    def sync(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    return sync


# Files


async def test_damage_below_the_durable_end_is_named_and_never_skipped(
    log: EmbeddedLog, tmp_path: Path
) -> None:
    await produce(log, 5)
    path = only_file(tmp_path, "*.seg")
    with path.open("r+b") as file:
        file.seek(2500)
        file.write(b"\xff")
    with pytest.raises(LogCorrupt) as found:
        await log.read(TOPIC, 0, 0)
    assert str(path) in found.value.message
    assert "byte 2" in found.value.message
    consumer = await log.consume(GROUP, [TOPIC], RecordingHandler())
    with pytest.raises(LogCorrupt):
        await until(lambda: consumer.poll(0.1))


async def test_a_torn_last_page_is_cut_after_the_machine_went_down(
    log: EmbeddedLog, tmp_path: Path, disk: Disk, log_settings: EmbeddedLogSettings
) -> None:
    await produce(log, 3)
    end = log._streams[TOPIC].durable().position
    await log.close()
    with only_file(tmp_path, "*.seg").open("r+b") as file:
        file.seek(end)
        file.write(b"half a frame" * 20)
    disk.boot = "boot-2"
    again = EmbeddedLog(tmp_path, log_settings)
    await again.start()
    await again.ensure_topics([TopicSpec(TOPIC, partitions=2, retention_seconds=3600)])
    await produce(again)
    assert [r.offset for r in await again.read(TOPIC, 0, 0)] == [0, 1, 2, 3]
    await again.close()


async def test_acknowledged_data_that_the_disk_lost_is_not_hidden(
    log: EmbeddedLog, tmp_path: Path, disk: Disk, log_settings: EmbeddedLogSettings
) -> None:
    await produce(log, 3)
    await log.close()
    with only_file(tmp_path, "*.seg").open("r+b") as file:
        file.truncate(1500)
    disk.boot = "boot-2"
    again = EmbeddedLog(tmp_path, log_settings)
    await again.start()
    with pytest.raises(LogCorrupt, match="restore"):
        await again.ensure_topics([TopicSpec(TOPIC, partitions=2, retention_seconds=3600)])
    await again.close()


@pytest.mark.parametrize(("pattern", "version_at"), [("*.seg", 8), ("tail", 8)])
async def test_a_newer_format_is_refused_by_name(
    log: EmbeddedLog,
    tmp_path: Path,
    disk: Disk,
    log_settings: EmbeddedLogSettings,
    pattern: str,
    version_at: int,
) -> None:
    await produce(log)
    await log.close()
    path = only_file(tmp_path, pattern)
    with path.open("r+b") as file:
        file.seek(version_at)
        file.write(b"\x09")
    disk.boot = "boot-2"
    again = EmbeddedLog(tmp_path, log_settings)
    await again.start()
    with pytest.raises(FailedPrecondition, match="format 9, newer than") as refused:
        await again.ensure_topics([TopicSpec(TOPIC, partitions=2, retention_seconds=3600)])
    assert str(path) in refused.value.message
    await again.close()


async def test_newer_metadata_is_refused(
    log: EmbeddedLog, tmp_path: Path, log_settings: EmbeddedLogSettings
) -> None:
    await log.close()
    connection = sqlite3.connect(tmp_path / "log" / "meta.db")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(FailedPrecondition, match="format 9, newer than"):
        await EmbeddedLog(tmp_path, log_settings).start()


async def test_segments_of_another_incarnation_are_refused(
    log: EmbeddedLog, tmp_path: Path, log_settings: EmbeddedLogSettings
) -> None:
    await produce(log)
    await log.close()
    for path in (tmp_path / "log").glob("meta.db*"):
        path.unlink()
    again = EmbeddedLog(tmp_path, log_settings)
    await again.start()
    with pytest.raises(LogCorrupt, match="another"):
        await again.ensure_topics([TopicSpec(TOPIC, partitions=2)])
    await again.close()


async def test_a_directory_that_cannot_be_used_is_an_error(
    tmp_path: Path, log_settings: EmbeddedLogSettings
) -> None:
    (tmp_path / "log").write_text("a file where a directory is due")
    with pytest.raises(Unavailable, match="log"):
        await EmbeddedLog(tmp_path, log_settings).start()
