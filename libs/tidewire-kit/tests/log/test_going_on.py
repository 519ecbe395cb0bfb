"""A log made beside a restored store goes on where storage stands, and gives no offset twice."""

from pathlib import Path

import pytest

from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.log.embedded.going_on import TopicEnd, begin_log, durable_ends
from tidewire_kit.log.port import Outgoing, TopicSpec

SPEC = TopicSpec("readings", partitions=3)
SETTINGS = EmbeddedLogSettings(min_free_bytes=0, preallocate_bytes=1 << 16)


async def started(directory: Path) -> EmbeddedLog:
    log = EmbeddedLog(directory, SETTINGS)
    await log.start()
    await log.ensure_topics([SPEC])
    return log


async def test_it_has_the_incarnation_and_goes_on_at_the_offsets(tmp_path: Path) -> None:
    end = TopicEnd(bytes(range(16)), (70, 0, 5))
    begin_log(tmp_path / "log", {SPEC: end})

    log = await started(tmp_path)
    assert log.incarnation("readings") == end.incarnation
    assert await log.read("readings", 0, 70) == []
    assert await log.produce("readings", [Outgoing(0, b"k", [b"a"]), Outgoing(1, b"k", [b"b"])]) == [70, 0]
    await log.close()

    log = await started(tmp_path)  # a second start finds the same
    assert await log.produce("readings", [Outgoing(2, b"k", [b"c"]), Outgoing(0, b"k", [b"d"])]) == [5, 71]
    assert [(one.offset, bytes(one.value)) for one in await log.read("readings", 0, 70)] == [
        (70, b"a"),
        (71, b"d"),
    ]
    await log.close()
    assert durable_ends(tmp_path / "log")["readings"] == TopicEnd(end.incarnation, (72, 1, 6))


async def test_ends_are_those_of_a_running_log(tmp_path: Path) -> None:
    assert durable_ends(tmp_path / "log") == {}
    log = await started(tmp_path)
    await log.produce("readings", [Outgoing(2, b"k", [b"x"])] * 4)

    ends = durable_ends(tmp_path / "log")
    assert ends["readings"] == TopicEnd(log.incarnation("readings"), (0, 0, 4))
    await log.close()


async def test_a_log_that_is_there_is_not_begun_again(tmp_path: Path) -> None:
    end = TopicEnd(bytes(16), (1, 2, 3))
    begin_log(tmp_path / "log", {SPEC: end})
    with pytest.raises(FailedPrecondition, match="there is a log") as raised:
        begin_log(tmp_path / "log", {SPEC: end})
    assert raised.value.reason == "DATA_DIR_NOT_EMPTY"
