"""A start or a close that is cancelled at any moment leaves no connection, socket, thread or task behind."""

import asyncio
import gc
import sqlite3
import threading
from pathlib import Path

import pytest

from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.log.embedded.meta_thread import connect
from tidewire_kit.log.port import TopicSpec
from tidewire_testkit.polling import until

SETTINGS = EmbeddedLogSettings(min_free_bytes=0, segment_bytes=1 << 20, preallocate_bytes=1 << 12)
MOST_STEPS = 400


def nothing_left(run: Path) -> bool:
    """No thread of a log, no socket to be woken by, and no task but the test's own."""
    threads = [thread.name for thread in threading.enumerate() if thread.name == "log-meta"]
    wakes = [path.name for path in (run / "wake").glob("*") if path.is_socket()]
    return not threads and not wakes and len(asyncio.all_tasks()) == 1


async def after(steps: int) -> None:
    """So many turns of the loop; some of them wait for threads."""
    for _ in range(steps):
        await asyncio.sleep(0)


@pytest.mark.parametrize("interrupted", ["start", "close"])
async def test_cancelled_at_any_moment_it_leaves_nothing(tmp_path: Path, interrupted: str) -> None:
    steps, ended = 0, 0
    while ended < 2 and steps < MOST_STEPS:
        log = EmbeddedLog(tmp_path, SETTINGS)
        if interrupted == "close":
            await log.start()
            await log.ensure_topics([TopicSpec("a.stream")])
        work = asyncio.create_task(log.start() if interrupted == "start" else log.close())
        await after(steps)
        ended += work.done()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await log.close()
        await until(lambda: nothing_left(tmp_path / "run"), message=f"after {steps} steps")
        steps += 1 + steps // 4
    gc.collect()  # what was not closed says so now


def test_a_database_that_cannot_be_used_is_closed(tmp_path: Path) -> None:
    (tmp_path / "meta.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(sqlite3.DatabaseError):
        connect(tmp_path / "meta.db")
    gc.collect()
