"""After a fault has ended, work goes on within 20 s by itself: the promise that every test of a fault checks."""

import time
from collections.abc import Callable

from tidewire_testkit.polling import until

PROGRESS_SECONDS = 20.0
"""From the end of a fault (the server takes clients again) to the next acknowledged piece of work."""


async def progress(last_begun: Callable[[], float], what: str) -> float:
    """Waits until work that was begun after this call is acknowledged; returns after how many seconds it was.

    `last_begun` says when (monotonic time) the newest acknowledged work was begun. AssertionError after
    PROGRESS_SECONDS.
    """
    since = time.monotonic()
    await until(lambda: last_begun() > since, seconds=PROGRESS_SECONDS, message=f"{what} goes on")
    return time.monotonic() - since
