"""The message log as the platform sees it: what may be asked of it, and what it guarantees.

Every stage of the pipeline talks to the others through this port and nothing else: ingestion appends, the owners of
partitions (storage, alerting, routing) consume, and everybody follows the compacted topics (registry, rules, members).
`tidewire_kit.log.embedded` implements it with files on one machine; a Kafka adapter implements it with a cluster. The
contract suite `tidewire_testkit.log_contract` says in tests what this module says in words.

Guarantees common to all methods
- Threads: create and use a log on one asyncio event loop. No method blocks the loop. No object of this module may be
  used from another thread.
- Key and order: a record belongs to one partition of one topic. Records of one partition have dense, ascending offsets
  (0, 1, 2, ...), are read in that order, and those of one `produce` call keep the order of the call. Nothing is
  promised between partitions.
- Delivery: what `produce` or `put` returned for is on disk and is read by every group at least once, until
  retention removes it. What raised may or may not be in the log, but at most once and never before an earlier record of
  the same caller. The log does not remove duplicates: a caller that repeats a call carries an id of its own.
- Retention removes only a prefix of a partition, so a gap between two offsets that a reader gets is exactly the number
  of records that it missed.
- Errors: `LogFull` (nothing was appended, try again after `retry_delay_seconds`), `Unavailable` (state unknown, safe to
  repeat with the same id), `LogCorrupt` (stop: data below the durable position is damaged), `FailedPrecondition`
  (a mistake in configuration; the message names the remedy).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

Buffer = bytes | bytearray | memoryview
Buffers = Sequence[Buffer]
"""A value given as pieces; their concatenation is the value. They are written without being joined first."""

TopicPartition = tuple[str, int]
"""(topic, partition)."""

NO_HEADERS: Mapping[str, bytes] = MappingProxyType({})

MAX_RECORD_BYTES = 1_000_000
"""Largest value + key + headers of one record. A Kafka broker refuses above 1 MiB by default, so both refuse here."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What a topic shall be like. The partition count of an existing topic never changes."""

    name: str
    """`[a-z][a-z0-9.-]{0,199}`, for example `tidewire.telemetry.v1`."""
    partitions: int = 4
    """1 to 1,024. Ignored for compacted topics, which have one."""
    compacted: bool = False
    """True: a table of the latest value per key (`put`, `table`). False: a stream of records (`produce`, `consume`)."""
    retention_seconds: float = 72 * 3600
    """Records older than this may be removed once every retention holder has committed them. Unused when compacted."""
    held_for: tuple[str, ...] = ()
    """Groups that hold the records of this topic from its creation on, though they have never come yet."""
    may_exceed_cap: bool = False
    """For what consumers write in order to finish what fills the log (dead letters): goes on for a while at its cap."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to append. The buffers must not change until `produce` returns or raises."""

    partition: int
    key: bytes
    value: Buffers
    headers: Mapping[str, bytes] = NO_HEADERS


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record as read. `value` may be a view of mapped memory; it stays valid for as long as it is held."""

    topic: str
    partition: int
    offset: int
    appended_at_us: int
    """Log time: when the log took the record, unix µs, not decreasing within a partition."""
    key: bytes
    value: memoryview | bytes
    headers: Mapping[str, bytes] = NO_HEADERS


@dataclass(frozen=True, slots=True)
class MemberProfile:
    """What a process says of itself to the others."""

    service: str
    """For example `ingestion`."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Purpose → host:port, for example `{"grpc": "127.0.0.1:7002", "metrics": "127.0.0.1:7102"}`."""


@dataclass(frozen=True, slots=True)
class Member:
    """A live process, as seen by this one. `member_id` is new with each start of a process."""

    member_id: str
    service: str
    host: str
    pid: int
    addresses: Mapping[str, str]
    started_at_us: int


TableItem = tuple[bytes, bytes | None]
"""(key, value); value None: the key was removed."""


class TableReader(Protocol):
    """A reader of a compacted topic: first the current state, then every change, in order of the changes.

    Iterating yields batches (lists of items). The replay holds the latest value of each live key once; it ends with one
    empty batch, the mark, even when the topic is empty. A key changed several times between two batches may appear only
    with its last value. Keys removed before the iteration began do not appear; a later removal does. Nothing put before
    the iteration began is missing when the mark comes. Batches have at most 4,096 items. Iterate only once.
    """

    caught_up: asyncio.Event
    """Set when the mark is handed out, that is, when everything before it was taken by the iterating task."""

    def __aiter__(self) -> AsyncIterator[list[TableItem]]: ...

    async def close(self) -> None:
        """Ends the iteration (StopAsyncIteration). Idempotent."""


class RebalanceHandler(Protocol):
    """Told of partitions that come and go. Both are awaited from inside `Consumer.poll` or `Consumer.close`, never
    while the caller is working on what `poll` returned, so that no lock is needed between them."""

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int] | None:
        """Called when this process has become the owner of `partitions`, before any record of them is returned.

        Returns the offsets to start from, where it knows better than the log (its own snapshot). A partition that is
        left out starts at the group's committed offset, or at the beginning when there is none. An offset before the
        beginning means the beginning.
        """

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Called when `partitions` go to somebody else, while they are still owned: finish, flush, commit.

        No other process starts on them before this returns (embedded), or before the session of this process has ended
        (Kafka). If it raises, the partitions are given up all the same and the error leaves `poll`.
        """


class Consumer(Protocol):
    """One member of a consumer group: reads the partitions assigned to it. Every partition has one owner in a group.

    Used by one task; only `commit` may be called from others. If `poll` is cancelled, nothing is lost: what it would
    have returned comes with the next poll.
    """

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions owned now. Changes only inside `poll` and `close`."""

    async def poll(self, max_wait_seconds: float, max_bytes: int = 8 << 20) -> list[LogRecord]:
        """Returns the next records of the assigned partitions, ascending by offset within each partition.

        Waits up to `max_wait_seconds` for the first one, never longer once there is one; empty when there was none.
        Stops after `max_bytes` of values, but returns at least one record. Poll at least every 30 s, or the assignment
        stands still. Raises LogCorrupt, FailedPrecondition (OFFSET_AFTER_END), Unavailable, or what the handler raised.
        """

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Durably notes, per partition, the offset of the next record to process. Idempotent; may go backwards.

        Raises FailedPrecondition (reason NOT_OWNER) when a partition is not owned by this consumer (any more), and then
        notes none of them; Unavailable.
        """

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Makes `poll` continue at `offset`. FailedPrecondition (reason NOT_OWNER) when it is not owned.

        Before the beginning means the beginning. After the end makes `poll` raise FailedPrecondition (reason
        OFFSET_AFTER_END): the log has lost what the caller has already seen.
        """

    def position(self, topic: str, partition: int) -> int:
        """The offset of the next record that `poll` would return. FailedPrecondition when not owned."""

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """`poll` returns nothing of these until `resume`; they stay owned. Partitions not owned are ignored."""

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Undoes `pause`; continues where it stopped."""

    async def close(self) -> None:
        """Awaits `revoked` for all that is owned, then leaves the group at once. Idempotent."""


class MessageLog(Protocol):
    """The log itself; one per process."""

    async def start(self) -> None:
        """Opens the log. Raises FailedPrecondition when its format is newer than this software, Unavailable."""

    async def close(self) -> None:
        """Closes consumers and table readers, finishes what `produce` has taken, leaves the members. Idempotent."""

    def ended(self) -> str | None:
        """Says which of the threads and tasks that the log runs by has ended, so that only a new process can go on.

        None while all run (see `tidewire_kit.lasting`); brokers and disks are not looked at."""

    # Topics

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Creates the topics that are missing; safe to call from many processes at once.

        An existing topic takes the new retention. Another partition count, or another kind, raises FailedPrecondition
        (reason TOPIC_MISMATCH) and changes nothing.
        """

    def partitions(self, topic: str) -> int:
        """Number of partitions, as stored with the topic. NotFound for a topic this process has not ensured."""

    def incarnation(self, topic: str) -> bytes:
        """16 bytes that no other topic has, not even one of the same name before or after. Offsets are only comparable
        within one incarnation. NotFound as for `partitions`."""

    # Streams

    async def produce(self, topic: str, records: Sequence[Outgoing]) -> list[int]:
        """Appends and returns the offsets, in the order of `records`, once all are DURABLE.

        All records of a call, of whatever partitions, become durable by one commit; calls that wait for the same commit
        share it. Order: two calls of one process, where the second was made after the first, append in
        this order. If the caller is cancelled the records may still be appended.

        Raises LogFull and InvalidArgument (nothing was appended), Unavailable (unknown: repeat it with the same id).
        """

    async def read(
        self, topic: str, partition: int, offset: int, max_bytes: int = 8 << 20
    ) -> list[LogRecord]:
        """Reads without a group from `offset` on (replay, inspection, tests); empty at the end. Does not wait.

        Limits as for `Consumer.poll`. An offset before the beginning means the beginning.
        """

    async def consume(self, group: str, topics: Sequence[str], handler: RebalanceHandler) -> Consumer:
        """Joins `group` (`tidewire.<service>`) and registers it as a reader of `topics`.

        Every member of a group names the same topics. Partitions come with the first polls.
        """

    async def begin_offsets(self, topic: str) -> list[int]:
        """Per partition, the offset of the oldest record kept (or of the next one to come)."""

    async def end_offsets(self, topic: str) -> list[int]:
        """Per partition, the offset that follows the last durable record."""

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """Partition → committed offset; partitions never committed are absent."""

    async def lag(self, group: str, topic: str) -> dict[int, int]:
        """Partition → durable records that the group has not committed."""

    # Compacted topics

    async def put(self, topic: str, items: Sequence[TableItem]) -> None:
        """Sets (or, with None, removes) keys of a compacted topic; durable when it returns. Idempotent.

        All or none, on an adapter with the capability `atomic_put` (embedded); otherwise (Kafka) in the order given, so
        that of a call that raised Unavailable a first part may be set. Of a key given twice the last one holds. Raises
        LogFull (nothing was set), Unavailable.
        """

    def table(self, topic: str) -> TableReader:
        """Starts a reader of a compacted topic. NotFound as for `partitions`."""

    # Members

    async def announce(self, profile: MemberProfile) -> None:
        """Makes this process known to the others until `close` (also one that consumes nothing). May be repeated."""

    def members(self, service: str | None = None) -> list[Member]:
        """The live processes that announced themselves (this one too), sorted by (started_at_us, member_id).

        A process that was killed stays for up to 5 s; one that closed its log is gone at once.
        """
