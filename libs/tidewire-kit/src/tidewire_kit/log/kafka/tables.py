"""Reads a compacted topic: the current state, a mark, then every change. See `TableReader` in the port.

A client of its own without a group reads the topic's one partition from the beginning. Up to the end that it had when
the iteration began, only the last value of each key is kept; then changes are handed on as they come. It reads only
while somebody iterates.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import batched
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from tidewire_kit.errors import TidewireError, Unavailable
from tidewire_kit.log.kafka import config
from tidewire_kit.log.kafka.errors import DEPENDENCY, MOVING_CODES, kafka_error, mapped
from tidewire_kit.log.kafka.settings import KafkaSettings
from tidewire_kit.log.kafka.worker import Worker
from tidewire_kit.log.port import TableItem

_BATCH = 4096
_WAIT_SECONDS = 0.25
_RETRY_SECONDS = 0.5
_PASSING_CODES = MOVING_CODES | {
    KafkaError._PARTITION_EOF,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
}
_log = logging.getLogger(__name__)

_Items = dict[bytes, bytes | None]


class KafkaTable:
    """A table reader over one partition of a compacted topic."""

    def __init__(self, topic: str, settings: KafkaSettings, on_close: "Callable[[KafkaTable], None]") -> None:
        self.caught_up = asyncio.Event()
        self._topic = topic
        self._settings = settings
        self._on_close = on_close
        self._stopped = asyncio.Event()
        self._worker = Worker(f"kafka-table-{topic}")
        self._source = _Source(settings, settings.topic_prefix + topic)

    def __aiter__(self) -> AsyncIterator[list[TableItem]]:
        return self._batches()

    def ended(self) -> str | None:
        """As of `MessageLog.ended`."""
        return self._worker.ended()

    async def close(self) -> None:
        """Ends the iteration."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._on_close(self)
        closing = self._worker.call(self._source.close)
        self._worker.stop()
        await asyncio.wait([closing], timeout=self._settings.request_timeout_seconds)

    async def _batches(self) -> AsyncIterator[list[TableItem]]:
        state = await self._call(self._source.replay)
        if state is None:
            return
        for batch in batched(state.items(), _BATCH):
            yield list(batch)
            if self._stopped.is_set():
                return
        del state
        self.caught_up.set()
        yield []
        while not self._stopped.is_set():
            try:
                changes = await self._call(self._source.follow)
            except TidewireError as error:
                # Who follows would look no more: say it and try again.
                _log.warning("table %s could not be read and will be again: %s", self._topic, error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if changes:
                yield list(changes.items())

    async def _call(self, function: Callable[[], _Items]) -> _Items | None:
        """The outcome, or None when the reader is closed meanwhile."""
        if self._stopped.is_set():
            return None
        outcome = self._worker.call(function)
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            waiting: list[asyncio.Future[Any]] = [outcome, stopped]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if self._stopped.is_set():
            return None
        return outcome.result()


class _Source:
    """The blocking half; runs on the reader's worker thread. Raises errors of the kit."""

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._consumer: Any = None
        self._closed = False

    def replay(self) -> _Items:
        """The latest value of every live key, as of now or a little later."""
        patience = 2 * self._settings.request_timeout_seconds
        try:
            self._consumer = Consumer(config.reader(self._settings, "tables"))
            end = self._end()
            self._consumer.assign([TopicPartition(self._name, 0, OFFSET_BEGINNING)])
        except KafkaException as error:
            raise mapped(error, f"cannot read topic {self._name}") from error
        state: _Items = {}
        reached = 0
        heard_at = time.monotonic()
        while reached < end:
            for message in self._messages():
                heard_at = time.monotonic()
                problem = message.error()
                if problem is None:
                    reached = message.offset() + 1
                    value = message.value()
                    if value is None:
                        state.pop(message.key(), None)
                    else:
                        state[message.key()] = value
                elif problem.code() == KafkaError._PARTITION_EOF:
                    # Compaction may have removed the very last records.
                    reached = max(reached, message.offset())
            if self._closed:
                return state
            if time.monotonic() - heard_at > patience:
                raise Unavailable(DEPENDENCY, f"nothing can be read of topic {self._name}")
        return state

    def follow(self) -> _Items:
        """What has changed since, after waiting a moment for it; the last value of each key."""
        changes: _Items = {}
        for message in self._messages():
            if message.error() is None:
                key = message.key()
                changes.pop(key, None)  # its last change decides its place in the order
                changes[key] = message.value()
        return changes

    def close(self) -> None:
        """Gives up the client."""
        self._closed = True
        if self._consumer is not None:
            self._consumer.close()

    def _end(self) -> int:
        """The offset after the last record; asks again while the topic is new or its leader moves."""
        seconds = self._settings.request_timeout_seconds
        deadline = time.monotonic() + seconds
        while True:
            try:
                _, end = self._consumer.get_watermark_offsets(TopicPartition(self._name, 0), timeout=seconds)
            except KafkaException as error:
                found = kafka_error(error)
                if (
                    found is None
                    or found.code() not in MOVING_CODES
                    or time.monotonic() > deadline
                    or self._closed
                ):
                    raise
                self._consumer.poll(_RETRY_SECONDS / 5)
            else:
                return int(end)

    def _messages(self) -> list[Any]:
        first = self._consumer.poll(_WAIT_SECONDS)
        if first is None:
            return []
        messages = [first, *self._consumer.consume(_BATCH - 1, 0)]
        for message in messages:
            error = message.error()
            if error is not None and error.code() not in _PASSING_CODES:
                raise mapped(error, f"cannot read topic {self._name}")
        return messages


def unique(items: Sequence[TableItem]) -> dict[bytes, bytes | None]:
    """Of a key given twice the last one holds, and its place in the order."""
    found: _Items = {}
    for key, value in items:
        found.pop(key, None)
        found[key] = value
    return found
