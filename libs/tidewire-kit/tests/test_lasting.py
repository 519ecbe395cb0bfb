"""Which of the tasks and threads that a process rests on has ended."""

import asyncio
import threading

from tidewire_kit.lasting import ended, first


async def test_tasks() -> None:
    async def fail() -> None:
        raise OSError("no disk")

    async def stop() -> None: ...

    lasting = asyncio.create_task(asyncio.Event().wait(), name="lasting")
    failed, stopped = asyncio.create_task(fail(), name="a"), asyncio.create_task(stop(), name="b")
    await asyncio.wait({failed, stopped})
    assert ended(None, lasting) is None
    assert ended(lasting, failed) == "the task 'a' ended: OSError('no disk')"
    assert ended(stopped, failed) == "the task 'b' ended"
    lasting.cancel()
    await asyncio.wait({lasting})
    assert ended(lasting) == "the task 'lasting' was cancelled"


def test_threads() -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="w")
    assert ended(thread) is None
    thread.start()
    assert ended(thread) is None
    go.set()
    thread.join()
    assert ended(thread) == "the thread 'w' ended"


def test_the_first_that_speaks_is_heard() -> None:
    assert first([]) is None
    assert first([lambda: None, lambda: "one", lambda: "two"]) == "one"
