"""Waiting for something to become true: polling with a deadline, never a bare sleep."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

DEADLINE_SECONDS = 10.0
"""Generous on purpose: a test that passes does not wait for it, and a busy machine must not make one fail."""

_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.05


async def until[T](
    what: Callable[[], T | Awaitable[T]], *, seconds: float = DEADLINE_SECONDS, message: str = ""
) -> T:
    """Calls `what` until its result is true, and returns that; AssertionError after `seconds`, with the last result."""
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        outcome = what()
        result: T = await outcome if inspect.isawaitable(outcome) else outcome
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{message or 'not true'} within {seconds:g} s; last: {result!r}")
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def until_sync[T](what: Callable[[], T], *, seconds: float = DEADLINE_SECONDS, message: str = "") -> T:
    """Does as `until`, outside of an event loop."""
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        result = what()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{message or 'not true'} within {seconds:g} s; last: {result!r}")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
