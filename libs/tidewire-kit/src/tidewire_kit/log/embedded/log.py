"""The embedded message log: the port's methods, put together from the parts of this package.

Chosen in composition roots with the data directory as its only need. All processes of the platform on this machine
open the same directory; none of them is special.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tidewire_kit.errors import FailedPrecondition, InvalidArgument, TidewireError, Unavailable
from tidewire_kit.lasting import ended, first
from tidewire_kit.log.embedded import files, meta
from tidewire_kit.log.embedded.capacity import Capacity
from tidewire_kit.log.embedded.committer import Committer
from tidewire_kit.log.embedded.consumer import EmbeddedConsumer
from tidewire_kit.log.embedded.members import MEMBERS_SPEC, MEMBERS_TOPIC, Membership
from tidewire_kit.log.embedded.meta_thread import MetaThread
from tidewire_kit.log.embedded.ownership import Ownership
from tidewire_kit.log.embedded.retention import Retention
from tidewire_kit.log.embedded.settings import EmbeddedLogSettings
from tidewire_kit.log.embedded.table import EmbeddedTable
from tidewire_kit.log.embedded.topic import StreamTopic
from tidewire_kit.log.embedded.wake import LOOK_SECONDS, WakeReceiver, WakeSender
from tidewire_kit.log.errors import UnknownTopic
from tidewire_kit.log.port import (
    LogRecord,
    Member,
    MemberProfile,
    Outgoing,
    RebalanceHandler,
    TableItem,
    TopicSpec,
)

_TOPIC_NAME = re.compile(r"[a-z][a-z0-9.-]{0,199}")
_MOST_PARTITIONS = 1024
_TABLE_PATIENCE = 4
"""A lost wake-up delays a table by so many fall-back polls: looking costs it a query."""
_log = logging.getLogger(__name__)


class EmbeddedLog:
    """`MessageLog` over files in `<data_dir>/log` and sockets and locks in `<data_dir>/run`."""

    def __init__(self, data_dir: Path, settings: EmbeddedLogSettings | None = None) -> None:
        self._settings = settings or EmbeddedLogSettings()
        self._directory = data_dir / "log"
        self._run_directory = data_dir / "run"
        self._rows: dict[str, meta.TopicRow] = {}
        self._may_exceed_cap: set[str] = set()
        self._streams: dict[str, StreamTopic] = {}
        self._committers: dict[str, Committer] = {}
        self._senders: dict[str, WakeSender] = {}
        self._consumers: list[EmbeddedConsumer] = []
        self._tables: list[EmbeddedTable] = []
        self._started = False
        self._closing = False

    async def start(self) -> None:
        """See the port."""
        try:
            await asyncio.to_thread(self._make_directories)
        except OSError as error:
            raise Unavailable("message log", f"cannot use its directory: {error}") from error
        self._retention = Retention(self._directory, self._settings, lambda: tuple(self._streams.values()))
        self._capacity = Capacity(
            self._directory, self._settings, lambda: tuple(self._streams.values()), self._make_room
        )
        self._wake = WakeReceiver(self._run_directory / "wake")
        self._meta = MetaThread(self._directory / "meta.db")
        self._started = True
        membership: Membership | None = None
        try:
            self._wake.start()
            await self._meta.write(meta.prepare)
            await self.ensure_topics([MEMBERS_SPEC])
            membership = self._membership = Membership(
                self._settings, self.put, self.table(MEMBERS_TOPIC), self._run_directory / "members"
            )
            await membership.start()
        except BaseException:
            self._closing = True
            await self._close_all(membership)
            raise
        self._maintenance = asyncio.create_task(self._maintain(), name="log maintenance")

    async def close(self) -> None:
        """See the port."""
        if not self._started or self._closing:
            return
        self._closing = True
        try:
            self._maintenance.cancel()
            await asyncio.gather(self._maintenance, return_exceptions=True)
            for consumer in tuple(self._consumers):
                try:
                    await consumer.close()
                except Exception:  # noqa: BLE001 - whatever a handler raised, the rest is closed
                    _log.exception("a consumer of group %s did not close in order", consumer.group)
            await asyncio.gather(*(committer.close() for committer in self._committers.values()))
        finally:  # also of one whose caller has lost patience
            await self._close_all(self._membership)

    def ended(self) -> str | None:
        """See the port."""
        if not self._started or self._closing:
            return None
        lifelines = [self._meta.ended, self._membership.ended]
        lifelines += [committer.ended for committer in self._committers.values()]
        return ended(self._maintenance) or first(lifelines)

    # Topics

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """See the port."""
        for spec in specs:
            if not _TOPIC_NAME.fullmatch(spec.name):
                raise InvalidArgument("topic", f"{spec.name!r} does not match {_TOPIC_NAME.pattern}")
            if not 1 <= spec.partitions <= _MOST_PARTITIONS:
                why = f"{spec.partitions} for topic {spec.name}; a topic has 1 to {_MOST_PARTITIONS}"
                raise InvalidArgument("partitions", why)
        rows = await self._meta.write(lambda connection: meta.ensure_topics(connection, specs))
        asked = {spec.name for spec in specs}
        self._may_exceed_cap |= {spec.name for spec in specs if spec.may_exceed_cap}
        for row in rows:
            if row.name not in asked:
                continue
            self._rows[row.name] = row
            if row.compacted:
                continue
            if row.name not in self._streams:
                opened = await asyncio.to_thread(_open_stream, self._directory, row, self._settings)
                if self._streams.setdefault(row.name, opened) is not opened:
                    opened.appender.close()
            self._streams[row.name].row = row

    def partitions(self, topic: str) -> int:
        """See the port."""
        return self._row(topic).partitions

    def incarnation(self, topic: str) -> bytes:
        """See the port."""
        return self._row(topic).incarnation

    # Streams

    async def produce(self, topic: str, records: Sequence[Outgoing]) -> list[int]:
        """See the port."""
        committer = self._committers.get(topic)
        if committer is None:
            committer = self._open_committer(topic)
        return await committer.submit(records)

    async def read(
        self, topic: str, partition: int, offset: int, max_bytes: int = 8 << 20
    ) -> list[LogRecord]:
        """See the port."""
        stream = self._stream(topic)
        if not 0 <= partition < stream.row.partitions:
            raise InvalidArgument(
                "partition", f"is {partition}; {topic} has {stream.row.partitions} partitions"
            )
        cursor = stream.cursor()
        cursor.want(partition, offset)
        try:
            return await asyncio.to_thread(cursor.read, max_bytes)
        except OSError as error:
            raise Unavailable("message log", f"cannot read topic {topic}: {error}") from error

    async def consume(self, group: str, topics: Sequence[str], handler: RebalanceHandler) -> EmbeddedConsumer:
        """See the port."""
        if any(consumer.group == group for consumer in self._consumers):
            raise FailedPrecondition(
                f"this process consumes in group {group} already; close that consumer first",
                reason="ALREADY_CONSUMING",
                subject=group,
            )
        streams = {topic: self._stream(topic) for topic in topics}
        ids = {topic: stream.row.id for topic, stream in streams.items()}
        await self._meta.write(lambda connection: meta.register_group(connection, group, ids.values()))
        counts = {topic: stream.row.partitions for topic, stream in streams.items()}
        consumer = EmbeddedConsumer(
            group=group,
            cursors={topic: stream.cursor() for topic, stream in streams.items()},
            topic_ids=ids,
            handler=handler,
            ownership=Ownership(self._run_directory / "owners", group, counts, self._membership),
            membership=self._membership,
            meta_thread=self._meta,
            wake=self._wake,
            settings=self._settings,
            on_close=self._consumers.remove,
        )
        self._consumers.append(consumer)
        try:
            await self._membership.set_group(group, frozenset(topics))
        except BaseException:
            with contextlib.suppress(TidewireError):
                await consumer.close()
            raise
        return consumer

    async def begin_offsets(self, topic: str) -> list[int]:
        """See the port."""
        return await asyncio.to_thread(self._stream(topic).begin_offsets)

    async def end_offsets(self, topic: str) -> list[int]:
        """See the port."""
        return list(self._stream(topic).durable().offsets)

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """See the port."""
        topic_id = self._stream(topic).row.id
        return await self._meta.read(lambda connection: meta.committed(connection, group, topic_id))

    async def lag(self, group: str, topic: str) -> dict[int, int]:
        """See the port."""
        committed = await self.committed(group, topic)
        begins = await self.begin_offsets(topic)
        ends = await self.end_offsets(topic)
        return {
            partition: max(0, end - max(committed.get(partition, 0), begins[partition]))
            for partition, end in enumerate(ends)
        }

    # Compacted topics

    async def put(self, topic: str, items: Sequence[TableItem]) -> None:
        """See the port."""
        row = self._compacted(topic)
        await self._meta.write(lambda connection: meta.put(connection, row.id, items))
        with contextlib.suppress(OSError):  # it is durable, and readers look by themselves too
            self._sender(topic).notify()

    def table(self, topic: str) -> EmbeddedTable:
        """See the port."""
        row = self._compacted(topic)
        table = EmbeddedTable(
            topic,
            row.id,
            self._meta,
            self._wake,
            _TABLE_PATIENCE * self._settings.fallback_poll_seconds,
            self._tables.remove,
        )
        self._tables.append(table)
        return table

    # Members

    async def announce(self, profile: MemberProfile) -> None:
        """See the port."""
        await self._membership.announce(profile)

    def members(self, service: str | None = None) -> list[Member]:
        """See the port."""
        return self._membership.members(service)

    # Inside

    def _make_directories(self) -> None:
        for directory in (self._directory, self._run_directory / "wake", self._run_directory / "owners"):
            directory.mkdir(parents=True, exist_ok=True)
        files.sync_directory(self._directory.parent)

    def _row(self, topic: str) -> meta.TopicRow:
        row = self._rows.get(topic)
        if row is None:
            raise UnknownTopic(f"topic {topic}")
        return row

    def _stream(self, topic: str) -> StreamTopic:
        if self._row(topic).compacted:
            raise InvalidArgument("topic", f"{topic} is compacted: use `put` and `table`")
        return self._streams[topic]

    def _compacted(self, topic: str) -> meta.TopicRow:
        row = self._row(topic)
        if not row.compacted:
            raise InvalidArgument("topic", f"{topic} is a stream: use `produce` and `consume`")
        return row

    def _sender(self, topic: str) -> WakeSender:
        sender = self._senders.get(topic)
        if sender is None:
            look_seconds = 0.0 if self._row(topic).compacted else LOOK_SECONDS
            sender = self._senders[topic] = WakeSender(self._run_directory / "wake", topic, look_seconds)
        return sender

    def _open_committer(self, topic: str) -> Committer:
        if self._closing:
            raise Unavailable("message log", "the process is stopping")
        notify = self._sender(topic).notify
        admit = partial(self._capacity.admit, may_exceed_cap=topic in self._may_exceed_cap)
        committer = Committer(self._stream(topic).appender, self._settings, admit, notify)
        self._committers[topic] = committer
        return committer

    def _make_room(self, needed_bytes: int) -> None:
        capacity = self._capacity
        self._retention.make_room(
            needed_bytes, capacity.cap_bytes, capacity.reserve_bytes, self._may_exceed_cap
        )
        for stream in tuple(self._streams.values()):
            stream.forget_begin()

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(self._settings.maintenance_seconds)
            try:
                await asyncio.to_thread(self._retention.expire_if_due)
            except Exception as error:  # noqa: BLE001 - without this task the log fills up
                _log.warning("retention failed and will be tried again: %r", error)

    async def _close_all(self, membership: Membership | None) -> None:
        try:
            if membership is not None:
                await membership.close()
        finally:
            await self._close_parts()

    async def _close_parts(self) -> None:
        try:
            for table in tuple(self._tables):
                await table.close()
        finally:
            try:
                await self._meta.close()
            finally:
                self._wake.close()
                for sender in self._senders.values():
                    sender.close()
                for stream in self._streams.values():
                    with contextlib.suppress(BufferError):  # a view of the tail is still held somewhere
                        stream.appender.close()


def _open_stream(directory: Path, row: meta.TopicRow, settings: EmbeddedLogSettings) -> StreamTopic:
    try:
        return StreamTopic(directory, row, settings)
    except OSError as error:
        raise Unavailable("message log", f"cannot open topic {row.name}: {error}") from error
