"""The promises of the log across real processes that are killed with SIGKILL at random moments."""

import asyncio
import itertools
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidewire_kit.log import LogRecord
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_testkit.polling import until_sync

PARTITIONS = 4
SCRIPT = Path(__file__).with_name("log_process.py")


class Process:
    """A child process with a ledger of its own."""

    numbers = itertools.count(1)

    def __init__(self, role: str, data_dir: Path, ledgers: Path) -> None:
        self.name = f"{role}-{next(self.numbers)}"
        self.ledger = ledgers / self.name
        self._child = subprocess.Popen([sys.executable, SCRIPT, role, data_dir, self.ledger, self.name])

    def lines(self) -> list[list[str]]:
        if not self.ledger.exists():
            return []
        return [line.split() for line in self.ledger.read_text().splitlines()]

    def kill(self) -> None:
        alive = self._child.poll() is None
        self._child.kill()
        self._child.wait()
        assert alive, f"{self.name} ended by itself with {self._child.returncode}"

    def reap(self) -> None:
        self._child.kill()
        self._child.wait()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.reap()


async def all_records(data_dir: Path) -> list[LogRecord]:
    log = EmbeddedLog(data_dir, EmbeddedLogSettings(min_free_bytes=0))
    await log.start()
    from log_process import TOPIC  # the child's script lies beside this file

    await log.ensure_topics([TOPIC])
    found: list[LogRecord] = []
    for partition in range(PARTITIONS):
        found += await log.read(TOPIC.name, partition, 0, max_bytes=1 << 30)
    await log.close()
    return found


@pytest.fixture(autouse=True)
def _script_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))


async def test_killed_writers_lose_nothing_and_repeat_nothing(
    tmp_path: Path, processes: list[Process]
) -> None:
    data_dir, ledgers = tmp_path / "data", tmp_path / "ledgers"
    ledgers.mkdir()
    writers = [Process("write", data_dir, ledgers) for _ in range(3)]
    processes += writers
    for turn in range(6):
        victim = turn % len(writers)
        until_sync(lambda victim=victim: len(writers[victim].lines()) > 10)
        await asyncio.sleep(random.uniform(0, 0.05))  # any moment will do
        writers[victim].kill()
        writers[victim] = Process("write", data_dir, ledgers)
        processes.append(writers[victim])
    until_sync(lambda: all(len(writer.lines()) > 10 for writer in writers))
    for writer in writers:
        writer.kill()

    found = await all_records(data_dir)
    by_place = {(r.partition, r.offset): bytes(r.value).rstrip(b".").decode() for r in found}
    acknowledged = {(int(p), int(o)): name for process in processes for p, o, name in process.lines()}
    assert sum(len(process.lines()) for process in processes) == len(acknowledged), (
        "an offset was given twice"
    )
    missing = {place: name for place, name in acknowledged.items() if by_place.get(place) != name}
    assert not missing, (
        f"{len(missing)} of {len(acknowledged)} acknowledged records are not where they were promised"
    )
    assert len(set(by_place.values())) == len(by_place), "a record is in the log twice"
    for partition in range(PARTITIONS):
        offsets = sorted(offset for p, offset in by_place if p == partition)
        assert offsets == list(range(len(offsets)))
    lanes: dict[tuple[str, int], int] = {}
    for record in found:
        name, lane, number = bytes(record.value).rstrip(b".").decode().split("/")
        assert lanes.get((name + lane, record.partition), 0) < int(number), (
            "the order of a writer was not kept"
        )
        lanes[name + lane, record.partition] = int(number)


async def test_killed_consumers_are_replaced_and_miss_nothing(
    tmp_path: Path, processes: list[Process]
) -> None:
    data_dir, ledgers = tmp_path / "data", tmp_path / "ledgers"
    ledgers.mkdir()
    consumers = [Process("consume", data_dir, ledgers) for _ in range(2)]
    writer = Process("write", data_dir, ledgers)
    processes += [*consumers, writer]

    def records(process: Process) -> list[tuple[int, int, str]]:
        return [(int(p), int(o), name) for p, o, name in process.lines() if p.isdigit()]

    for _ in range(2):
        until_sync(lambda consumers=consumers: all(records(consumer) for consumer in consumers))
        consumers[0].kill()
        survivor = consumers[1]
        until_sync(lambda survivor=survivor: len({p for p, _, _ in records(survivor)[-400:]}) == PARTITIONS)
        consumers = [survivor, Process("consume", data_dir, ledgers)]
        processes.append(consumers[1])
    until_sync(lambda consumers=consumers: all(records(consumer) for consumer in consumers))
    writer.kill()
    acknowledged = {(p, o): name for p, o, name in records(writer)}
    everyone = [process for process in processes if process is not writer]

    def consumed() -> dict[tuple[int, int], str]:
        return {(p, o): name for process in everyone for p, o, name in records(process)}

    until_sync(lambda: acknowledged.keys() <= consumed().keys())
    seen = consumed()
    assert all(seen[place] == name for place, name in acknowledged.items())
    for process in everyone:
        for partition in range(PARTITIONS):
            offsets = [o for p, o, _ in records(process) if p == partition]
            assert offsets == sorted(offsets), "a consumer went back"
