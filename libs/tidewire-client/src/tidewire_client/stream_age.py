"""How old a stream to ingestion may become: the platform says so, and the sender ends it in order at that age.

Streams that last for ever would stay with the processes that were there first. The age comes with the stream's initial
metadata; a platform that names none leaves streams alone.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

KEY = "tidewire-stream-seconds"


class StreamAge:
    """The age of one stream, counted from here on. `wake` is called when it is reached."""

    def __init__(self, call: Any, wake: Callable[[], None]) -> None:
        self.reached = False
        self._opened_at = time.monotonic()
        self._wake = wake
        self._task = asyncio.create_task(self._watch(call))

    @property
    def seconds(self) -> float:
        """How old the stream is."""
        return time.monotonic() - self._opened_at

    async def _watch(self, call: Any) -> None:
        most = dict(await call.initial_metadata()).get(KEY)
        if most is not None:
            await asyncio.sleep(float(most) - self.seconds)
            self.reached = True
            self._wake()

    async def close(self) -> None:
        """Counts no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
