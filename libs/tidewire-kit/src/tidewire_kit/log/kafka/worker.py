"""One thread that makes the blocking calls of one client, so that the event loop never does and no call needs a lock.

A consumer's rebalance callback runs inside such a call; while it waits for the event loop it serves further calls
(commits) with `serve`, on the same thread.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from tidewire_kit.lasting import ended

_Job = Callable[[], None]


class Worker:
    """Runs what `call` is given, in order."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call[T](self, function: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        """Queues a call; the future has its outcome. Giving the future up does not stop the call."""
        future: asyncio.Future[T] = self._loop.create_future()

        def job() -> None:
            try:
                outcome = function(*arguments)
            except BaseException as error:  # noqa: BLE001 - whoever waits is told, whatever it is
                self.tell(_fail, future, error)
            else:
                self.tell(_succeed, future, outcome)

        self._jobs.put(job)
        return future

    def post(self, function: Callable[[], None]) -> None:
        """Queues a call that nobody waits for."""
        self._jobs.put(function)

    def tell(self, function: Callable[..., object], *arguments: Any) -> None:
        """From the thread: calls `function` on the event loop, if there still is one."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def ended(self) -> str | None:
        """Says so when the thread has ended though nobody stopped it: calls would wait for ever."""
        return None if self._stopping else ended(self._thread)

    def serve(self, done: Callable[[], bool]) -> None:
        """From the thread, inside a call: runs further calls until `done()`, which is asked after each."""
        while not done():
            job = self._jobs.get()
            if job is None:
                self._jobs.put(None)  # the worker is stopping, and nobody will answer any more
                return
            job()

    def stop(self) -> None:
        """Ends the thread after what is queued."""
        self._stopping = True
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _succeed[T](future: "asyncio.Future[T]", outcome: T) -> None:
    if not future.done():
        future.set_result(outcome)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # a caller that does not look is no fault of ours
