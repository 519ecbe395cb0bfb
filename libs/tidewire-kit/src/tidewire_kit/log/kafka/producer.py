"""The producing end of a process: one idempotent producer, one thread that collects the acknowledgements.

Calls hand their records to the client library on the event loop (it only copies them), so the order of calls is the
order in the log. The thread waits for acknowledgements, and hands over all calls that are done after each look with one
wake-up of the loop. What may wait is bounded here, before anything of a call is taken: so LogFull means nothing was.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from tidewire_kit.errors import InvalidArgument, TidewireError, Unavailable
from tidewire_kit.lasting import ended
from tidewire_kit.log.errors import LogFull
from tidewire_kit.log.kafka import config
from tidewire_kit.log.kafka.errors import DEPENDENCY, mapped
from tidewire_kit.log.kafka.settings import KafkaSettings
from tidewire_kit.log.port import MAX_RECORD_BYTES, Outgoing

_LOOK_SECONDS = 0.1
_CLOSE_SECONDS = 10.0
_RECORD_BYTES = 100
"""About what a record costs in the queue besides its bytes."""
_log = logging.getLogger(__name__)

Item = tuple[int, bytes, bytes | None, Mapping[str, bytes]]
"""(partition, key, value, headers)."""


class _Call:
    """The records of one call until all are acknowledged. After `start` only the thread touches it."""

    __slots__ = ("_offsets", "begun", "done", "error", "future", "left", "partitions", "size")

    def __init__(
        self, future: "asyncio.Future[list[int]]", partitions: list[int], size: int, done: "_Done"
    ) -> None:
        self.future = future
        self.begun = time.monotonic()
        self.partitions = partitions
        self.size = size
        self.left = len(partitions)
        self.error: Any = None
        self.done = done
        self._offsets: dict[int, list[int]] = {}

    def delivered(self, error: Any, message: Any) -> None:
        """Called by the library, in the thread, once per record; in order within a partition."""
        if error is None:
            partition = message.partition()
            known = self._offsets.get(partition)
            if known is None:
                self._offsets[partition] = [message.offset()]
            else:
                known.append(message.offset())
        else:
            self.error = error
        self.left -= 1
        if not self.left:
            self.done.append(self)

    def offsets(self) -> list[int]:
        """In the order of the records."""
        found = {partition: iter(offsets) for partition, offsets in self._offsets.items()}
        return [next(found[partition]) for partition in self.partitions]


_Done = list[_Call]


class KafkaProducer:
    """See the module. Everything but `_run` and what it calls is used on the event loop."""

    def __init__(self, settings: KafkaSettings, on_statistics: Callable[[str], None] | None) -> None:
        """Raises what `config.base` raises."""
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._config = config.producer(settings, self._on_error)
        if on_statistics is not None:
            self._config["stats_cb"] = on_statistics
        self._done: _Done = []
        self._aborted: deque[tuple[_Call, int, BaseException]] = deque()
        self._waiting: deque[_Call] = deque()
        """Oldest first; those that are done stay until the oldest is."""
        self._calls = 0
        self._queued_bytes = 0
        self._fatal: KafkaError | None = None
        self._closing = False
        self._stop = threading.Event()
        self._stopped = self._loop.create_future()
        self._producer = Producer(self._config)
        self._thread = threading.Thread(target=self._run, name="kafka-acknowledgements", daemon=True)
        self._thread.start()

    @property
    def queued_bytes(self) -> int:
        """What waits to be acknowledged."""
        return self._queued_bytes

    def produce(
        self, topic: str, partitions: int, records: Sequence[Outgoing]
    ) -> "asyncio.Future[list[int]]":
        """Takes the records of one call; see the port. `topic` is the cluster's name."""
        items: list[Item] = []
        size = 0
        for index, record in enumerate(records):
            value = record.value
            joined = value[0] if len(value) == 1 and type(value[0]) is bytes else b"".join(value)
            if not 0 <= record.partition < partitions:
                why = f"is {record.partition}; {topic} has {partitions} partitions"
                raise InvalidArgument(f"records[{index}].partition", why)
            size += _checked_size(f"records[{index}].value", record.key, joined, record.headers)
            items.append((record.partition, record.key, joined, record.headers))
        return self.send(topic, items, size)

    def put(self, topic: str, items: Mapping[bytes, bytes | None]) -> "asyncio.Future[list[int]]":
        """Takes items of a compacted topic, in order."""
        size = sum(_checked_size(f"items[{key!r}]", key, value, {}) for key, value in items.items())
        return self.send(topic, [(0, key, value, {}) for key, value in items.items()], size)

    def send(self, topic: str, items: Sequence[Item], size: int) -> "asyncio.Future[list[int]]":
        """Hands records to the library, or raises LogFull or Unavailable and has taken none."""
        future: asyncio.Future[list[int]] = self._loop.create_future()
        if not items:
            future.set_result([])
            return future
        if self._closing:
            raise Unavailable(DEPENDENCY, "the process is stopping")
        size += _RECORD_BYTES * len(items)
        limit = self._settings.queue_bytes
        if self._queued_bytes and self._queued_bytes + size > limit:
            why = (
                f"more than {limit >> 20} MiB wait to be acknowledged by the brokers; see whether they keep up, or "
                "raise TIDEWIRE_KAFKA_QUEUE_BYTES"
            )
            raise LogFull(why, retry_delay_seconds=1.0)
        call = _Call(future, [item[0] for item in items], size, self._done)
        produce, delivered = self._producer.produce, call.delivered
        taken = 0
        try:
            for partition, key, value, headers in items:
                if headers:
                    produce(topic, value, key, partition, delivered, headers=list(headers.items()))
                else:
                    produce(topic, value, key, partition, delivered)
                taken += 1
        except (KafkaException, BufferError) as error:
            if not taken:
                raise mapped(error, f"cannot write to topic {topic}") from error
            self._aborted.append((call, len(items) - taken, error))
        self._waiting.append(call)
        self._calls += 1
        self._queued_bytes += size
        return future

    def ended(self) -> str | None:
        """As of `MessageLog.ended`."""
        return ended(self._thread)

    async def close(self) -> None:
        """Takes nothing more; returns when everything taken is acknowledged, or given up after 10 s. Idempotent."""
        self._closing = True
        self._stop.set()
        await asyncio.shield(self._stopped)

    # On the loop, called from the thread

    def _resolve(self, calls: Sequence[_Call]) -> None:
        for call in calls:
            self._calls -= 1
            self._queued_bytes -= call.size
            if call.future.done():
                continue  # its caller is gone
            if call.error is None:
                call.future.set_result(call.offsets())
            else:
                call.future.set_exception(_not_acknowledged(call.error))
                call.future.exception()  # a caller that does not look is no fault of ours

    def _has_stopped(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)

    # In the thread

    def _run(self) -> None:
        give_up_at: float | None = None
        while True:
            self._look(_LOOK_SECONDS)
            if self._fatal is not None:
                self._start_over(self._fatal.str())
            elif self._overdue():
                self._start_over(f"nothing was acknowledged for {self._settings.delivery_timeout_ms} ms")
            if not self._stop.is_set():
                continue
            give_up_at = give_up_at or time.monotonic() + _CLOSE_SECONDS
            if not self._calls and not self._done:
                break
            if time.monotonic() > give_up_at:
                self._producer.purge()
                self._look(0)
                break
        with contextlib.suppress(Exception):
            self._producer.close()
        self._tell(self._has_stopped)

    def _look(self, seconds: float) -> None:
        """Waits for acknowledgements, then hands over every call that they complete, at once."""
        self._producer.poll(seconds)
        while self._aborted:
            call, missing, error = self._aborted.popleft()
            call.error = error
            call.left -= missing
            if not call.left:
                self._done.append(call)
        if self._done:
            done = self._done.copy()
            self._done.clear()  # in place: the calls append to this very list
            self._tell(self._resolve, done)

    def _tell(self, function: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it everybody who waits
            self._loop.call_soon_threadsafe(function, *arguments)

    def _overdue(self) -> bool:
        while self._waiting and not self._waiting[0].left:
            self._waiting.popleft()
        limit_seconds = self._settings.delivery_timeout_ms / 1000
        return bool(self._waiting) and time.monotonic() - self._waiting[0].begun > limit_seconds

    def _start_over(self, why: str) -> None:
        """What waits fails as unknown, and a new producer takes over.

        After an error that ends an idempotent producer (the brokers have lost what they had acknowledged), and when
        records are overdue. A producer that may time out single records goes on with the others under a new epoch,
        which the brokers cannot compare with the old one: then they append a second time what they had appended.
        """
        _log.warning("the producer is replaced: %s", why)
        failed = self._producer
        self._producer = Producer(self._config)
        self._fatal = None
        while True:
            failed.purge()  # again: a call that was under way may have handed over more
            failed.poll(_LOOK_SECONDS)
            if not len(failed):
                break
        self._look(0)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() and self._fatal is None:
            self._fatal = error
        elif error.code() != KafkaError._ALL_BROKERS_DOWN:
            _log.debug("producer: %s", error.str())


def _checked_size(field: str, key: bytes, value: bytes | None, headers: Mapping[str, bytes]) -> int:
    size = len(key) + (len(value) if value is not None else 0)
    if headers:
        size += sum(len(name) + len(content) for name, content in headers.items())
    if size > MAX_RECORD_BYTES:
        why = f"has {size} bytes; a record may have {MAX_RECORD_BYTES}"
        raise InvalidArgument(field, why, reason="RECORD_TOO_LARGE")
    return size


def _not_acknowledged(error: Any) -> TidewireError:
    doing = "not acknowledged, so it is unknown whether it was written; repeat it with the same id"
    return mapped(error, doing)
