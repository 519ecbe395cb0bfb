"""Reads a compacted topic: the current state, a mark, then every change. See `TableReader` in the port."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable

from tidewire_kit.errors import Unavailable
from tidewire_kit.log.embedded import meta
from tidewire_kit.log.embedded.meta_thread import MetaThread
from tidewire_kit.log.embedded.wake import WakeReceiver
from tidewire_kit.log.port import TableItem

_BATCH = 4096
_log = logging.getLogger(__name__)


class EmbeddedTable:
    """A table reader over `meta.db`; woken by the writers, looking by itself every `fallback_seconds`."""

    def __init__(
        self,
        topic: str,
        topic_id: int,
        meta_thread: MetaThread,
        wake: WakeReceiver,
        fallback_seconds: float,
        on_close: "Callable[[EmbeddedTable], None]",
    ) -> None:
        self.caught_up = asyncio.Event()
        self._topic = topic
        self._topic_id = topic_id
        self._meta = meta_thread
        self._wake = wake
        self._fallback_seconds = fallback_seconds
        self._on_close = on_close
        self._news = asyncio.Event()
        self._stopped = asyncio.Event()
        self._sequence = 0
        wake.subscribe(topic, self._news.set)

    def __aiter__(self) -> AsyncIterator[list[TableItem]]:
        return self._batches()

    async def _batches(self) -> AsyncIterator[list[TableItem]]:
        opened_at = -1
        while not self._stopped.is_set():
            self._news.clear()
            try:
                if opened_at < 0:
                    opened_at = await self._meta.read(meta.last_sequence)
                rows = await self._meta.read(self._next)
            except Unavailable as error:
                if self._stopped.is_set():
                    return
                if not self.caught_up.is_set():
                    raise  # whoever begins to look is told; who follows would look no more
                _log.warning("table %s could not be read and will be again: %s", self._topic, error)
                await self._wait()
                continue
            if rows:
                self._sequence = rows[-1][0]
                # A removal from before the replay began concerns nobody who only now begins to look.
                items = [
                    (key, value) for sequence, key, value in rows if value is not None or sequence > opened_at
                ]
                if items:
                    yield items
            if len(rows) == _BATCH:
                continue
            if not self.caught_up.is_set():
                self.caught_up.set()
                yield []
            elif not rows and not self._stopped.is_set():
                await self._wait()

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), self._fallback_seconds)

    def _next(self, connection: sqlite3.Connection) -> list[tuple[int, bytes, bytes | None]]:
        return meta.entries_after(connection, self._topic_id, self._sequence, _BATCH)

    async def close(self) -> None:
        """Ends the iteration."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._wake.unsubscribe(self._topic, self._news.set)
            self._news.set()
            self._on_close(self)
