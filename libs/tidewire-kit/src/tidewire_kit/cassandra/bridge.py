"""Carries answers from the driver's thread to the event loop, many at a time.

The driver calls back on a thread of its own. Waking the loop costs a system call and a turn of the loop, so answers are
put on a deque and the loop is woken only when it has not been woken yet: under load one wake-up delivers hundreds.
Used by `session` only.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class LoopBridge:
    """One per session. `deliver` is called from any thread, `receive` runs on the loop, in order of delivery."""

    __slots__ = ("_answers", "_awake", "_loop", "_receive", "wake_ups")

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Callable[[Any, Any, Any], None]) -> None:
        self._loop = loop
        self._receive = receive
        self._answers: deque[tuple[Any, Any, Any]] = deque()
        self._awake = False
        self.wake_ups = 0
        """How often the loop was woken, for tests."""

    def succeeded(self, rows: Any, call: Any, response: Any) -> None:
        """Takes an answer; the driver's callback."""
        self._deliver((call, (rows, response), None))

    def failed(self, error: BaseException, call: Any) -> None:
        """Takes an error; the driver's errback."""
        self._deliver((call, None, error))

    def _deliver(self, answer: tuple[Any, Any, Any]) -> None:
        self._answers.append(answer)
        # No lock: the flag is cleared before the deque is emptied, so an answer that finds it set is seen by the drain
        # that has not begun yet. Two threads may both wake the loop; that costs one idle turn.
        if not self._awake:
            self._awake = True
            self.wake_ups += 1
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._answers.clear()

    def _drain(self) -> None:
        self._awake = False
        answers = self._answers
        for _ in range(len(answers)):
            self._receive(*answers.popleft())
