"""A member of a consumer group: what it owns, where it stands, what it has fetched and not handed out. See the port.

All of it runs on the event loop; the blocking calls are made by a `Client` on its worker thread. Rebalances are served
by whoever polls: the thread waits inside the client library until `poll` or `close` has called the handler.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException

from tidewire_kit.errors import FailedPrecondition, Unavailable
from tidewire_kit.log.errors import NotOwner
from tidewire_kit.log.kafka import config
from tidewire_kit.log.kafka.admin import Admin
from tidewire_kit.log.kafka.client import Client, Fetched, Kind, Orders, Rebalance
from tidewire_kit.log.kafka.errors import DEPENDENCY, NOT_OWNER_CODES, STALE_CODES, kafka_error, mapped
from tidewire_kit.log.kafka.positions import Positions
from tidewire_kit.log.kafka.settings import KafkaSettings
from tidewire_kit.log.kafka.worker import Worker
from tidewire_kit.log.port import LogRecord, RebalanceHandler, TopicPartition

_FETCH_SECONDS = 0.1
"""Longest single wait of the thread: a commit of another task, a close or a pause waits so long at most."""
_COMMIT_RETRY_SECONDS = 0.05
_COMMIT_PATIENCE_SECONDS = 3.0
_CLOSE_SECONDS = 10.0
_log = logging.getLogger(__name__)


class KafkaConsumer:
    """One member of a group in this process."""

    def __init__(
        self,
        group: str,
        topics: Sequence[str],
        handler: RebalanceHandler,
        settings: KafkaSettings,
        admin: Admin,
        on_statistics: Callable[[str], None] | None,
        on_close: "Callable[[KafkaConsumer], None]",
    ) -> None:
        self.group = group
        self._topics = tuple(topics)
        self._handler = handler
        self._settings = settings
        self._admin = admin
        self._on_statistics = on_statistics
        self._on_close = on_close
        self._prefix = settings.topic_prefix
        self._loop = asyncio.get_running_loop()
        self._worker = Worker(f"kafka-consumer-{group}")
        self._client: Client | None = None
        self._positions = Positions()
        self._unsettled: set[TopicPartition] = set()
        """Given to us by the group, but the handler failed: it is asked again with the next poll."""
        self._lost: set[TopicPartition] = set()
        self._requests: deque[Rebalance] = deque()
        self._fetch: asyncio.Future[Fetched] | None = None
        self._news = asyncio.Event()
        self._serving = asyncio.Lock()
        self._closed = False

    async def start(self) -> None:
        """Joins the group; the partitions come with the first polls."""
        settings = config.consumer(self._settings, self._prefix + self.group)
        if self._on_statistics is not None:
            settings["stats_cb"] = self._on_statistics
        try:
            self._client = await self._worker.call(
                Client, settings, self._topics, self._prefix, self._worker, self._rebalancing
            )
        except KafkaException as error:
            self._worker.stop()
            raise mapped(error, f"cannot join group {self.group}") from error

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """See the port."""
        return self._positions.assigned

    async def poll(self, max_wait_seconds: float, max_bytes: int = 8 << 20) -> list[LogRecord]:
        """See the port."""
        deadline = self._loop.time() + max_wait_seconds
        looked = False
        async with self._serving:
            while True:
                if self._closed:
                    raise Unavailable(DEPENDENCY, "the consumer is closed")
                self._news.clear()
                await self._serve()
                await self._settle()
                records = self._positions.take(max_bytes)
                if records:
                    return records
                remaining = deadline - self._loop.time()
                if remaining <= 0 and (looked or self._fetch is not None):
                    return []
                if self._fetch is None:
                    looked = True
                    self._start_fetch(max(0.0, min(remaining, _FETCH_SECONDS)))
                    await self._news.wait()
                else:
                    await self._wait(remaining)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See the port."""
        give_up_at = self._loop.time() + _COMMIT_PATIENCE_SECONDS
        while True:
            for place in offsets:
                if place not in self._positions.assigned or place in self._lost:
                    raise NotOwner(*place)
            if not offsets:
                return
            try:
                await self._worker.call(self._connected.commit, dict(offsets))
                return
            except KafkaException as error:
                found = kafka_error(error)
                code = found.code() if found is not None else None
                if code in NOT_OWNER_CODES:
                    raise NotOwner(*next(iter(offsets))) from error
                if code not in STALE_CODES:
                    raise mapped(error, f"cannot commit for group {self.group}") from error
                # The commit crossed a rebalance. Who still owns the partitions succeeds in a moment; who has lost
                # them cannot join again before `revoked` was called, so another try does no harm.
                if self._loop.time() > give_up_at:
                    if code == KafkaError.REBALANCE_IN_PROGRESS:  # still a member
                        raise mapped(error, f"cannot commit for group {self.group}") from error
                    raise NotOwner(*next(iter(offsets))) from error
            await asyncio.sleep(_COMMIT_RETRY_SECONDS)

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """See the port."""
        self._positions.seek((topic, partition), offset)

    def position(self, topic: str, partition: int) -> int:
        """See the port."""
        return self._positions.of((topic, partition))

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """See the port."""
        self._positions.pause(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """See the port."""
        self._positions.resume(partitions)

    def ended(self) -> str | None:
        """As of `MessageLog.ended`."""
        return self._worker.ended()

    async def close(self) -> None:
        """See the port."""
        if self._closed:
            return
        self._closed = True
        self._news.set()
        async with self._serving:
            try:
                with contextlib.suppress(
                    Exception
                ):  # of a handler whose partitions are given up below all the same
                    await self._finish_fetch()
                await self._give_up(self._positions.assigned)
            finally:
                self._unsettled.clear()
                with contextlib.suppress(Exception):
                    await self._leave()
                self._worker.stop()
                self._on_close(self)

    # Rebalance

    def _rebalancing(self, request: Rebalance) -> None:
        """Called on the loop when the thread waits for `request` to be answered."""
        self._requests.append(request)
        self._news.set()

    async def _serve(self) -> None:
        while self._requests:
            request = self._requests[0]
            try:
                if request.kind is Kind.ASSIGNED:
                    if not self._closed:
                        request.starts = await self._assign(request.partitions)
                else:
                    if request.kind is Kind.LOST:
                        self._lost |= set(request.partitions)
                    self._unsettled -= set(request.partitions)
                    await self._give_up(self._positions.assigned & set(request.partitions))
            except BaseException:
                if request.kind is Kind.ASSIGNED:
                    self._unsettled |= set(request.partitions)
                raise
            finally:
                self._requests.popleft()
                self._worker.post(_answering(request))

    async def _settle(self) -> None:
        """Asks the handler again where it failed, and makes sure that where to go on is in the log."""
        if self._unsettled and not self._requests:
            fresh = tuple(sorted(self._unsettled))
            starts = await self._assign(fresh)
            self._unsettled.clear()
            self._positions.order_seeks(starts)
        if self._connected.down:
            # An empty poll would look like an empty topic: Unavailable instead, until a broker answers.
            await self._admin.end_offsets(self._prefix + self._topics[0], [0])
            self._connected.down = False
        unsure = self._positions.unsure
        if unsure:
            begins, ends = await self._bounds(unsure)
            self._positions.confine(begins, ends)
        after_end = self._positions.after_end
        if after_end is not None:
            (topic, partition), offset, end = after_end
            why = (
                f"offset {offset} of {topic}/{partition} is after the end, {end}: the log has lost what this process "
                "has seen; restore the topic, or delete what was made from it"
            )
            raise FailedPrecondition(why, reason="OFFSET_AFTER_END", subject=f"{topic}/{partition}")

    async def _assign(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        begins, ends = await self._bounds(partitions)
        starts = dict(begins)
        for topic, numbers in _by_topic(partitions).items():
            committed = await self._admin.committed(self._prefix + self.group, self._prefix + topic, numbers)
            starts |= {(topic, partition): offset for partition, offset in committed.items()}
        starts |= await self._handler.assigned(partitions) or {}
        wanted = {place: starts[place] for place in partitions}
        self._lost -= set(partitions)
        self._positions.add(wanted)
        self._positions.confine(begins, ends)
        _log.info("group %s: %d partitions assigned", self.group, len(partitions))
        return {place: min(max(offset, begins[place]), ends[place]) for place, offset in wanted.items()}

    async def _give_up(self, partitions: frozenset[TopicPartition]) -> None:
        leaving = sorted(partitions)
        if not leaving:
            return
        try:
            await self._handler.revoked(leaving)
        finally:
            self._positions.remove(leaving)
            self._lost -= partitions
            _log.info("group %s: %d partitions given up", self.group, len(leaving))

    async def _bounds(
        self, partitions: Sequence[TopicPartition]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        begins: dict[TopicPartition, int] = {}
        ends: dict[TopicPartition, int] = {}
        for topic, numbers in _by_topic(partitions).items():
            name = self._prefix + topic
            first, last = await asyncio.gather(
                self._admin.begin_offsets(name, numbers), self._admin.end_offsets(name, numbers)
            )
            begins |= {(topic, partition): offset for partition, offset in first.items()}
            ends |= {(topic, partition): offset for partition, offset in last.items()}
        return begins, ends

    # Fetching

    @property
    def _connected(self) -> Client:
        assert self._client is not None
        return self._client

    def _start_fetch(self, seconds: float) -> None:
        orders = self._positions.orders()
        self._fetch = self._worker.call(self._connected.fetch, seconds, orders)
        self._fetch.add_done_callback(lambda done: self._fetched(done, orders))

    def _fetched(self, done: "asyncio.Future[Fetched]", orders: Orders) -> None:
        """Keeps what came, whether or not somebody still waits for it."""
        self._fetch = None
        self._news.set()
        error = done.exception()
        if error is not None:
            self._positions.not_done(orders)
            self._positions.trouble = (
                mapped(error, f"cannot read for group {self.group}")
                if isinstance(error, KafkaException)
                else error
            )
            return
        self._positions.keep(done.result())

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def _finish_fetch(self) -> None:
        while self._fetch is not None or self._requests:
            self._news.clear()
            await self._serve()
            if self._fetch is not None:
                await self._news.wait()

    async def _leave(self) -> None:
        if self._client is None:
            return
        leaving = self._worker.call(self._client.close)
        leaving.add_done_callback(lambda _: self._news.set())
        give_up_at = self._loop.time() + _CLOSE_SECONDS
        while not leaving.done() and self._loop.time() < give_up_at:
            self._news.clear()
            await self._serve()
            if not leaving.done():
                await self._wait(0.1)


def _answering(request: Rebalance) -> Callable[[], None]:
    def answer() -> None:
        request.answered = True

    return answer


def _by_topic(partitions: Sequence[TopicPartition]) -> dict[str, list[int]]:
    topics: dict[str, list[int]] = {}
    for topic, partition in partitions:
        topics.setdefault(topic, []).append(partition)
    return topics
