"""The owner's loop over a real log, with a processor that keeps everything in memory."""

import math
from collections.abc import Collection, Mapping

import numpy as np

from tidewire.events.v1.dead_letter_pb2 import DeadLetter
from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.log.embedded import EmbeddedLog
from tidewire_kit.log.port import TopicPartition
from tidewire_kit.owner import (
    NO_ENTRIES,
    UNKNOWN_TENANT,
    AdmittedRecord,
    Ledger,
    OwnerSettings,
    PartitionOwner,
    PoisonGuard,
    Progress,
    add_to,
)
from tidewire_testkit.clock import ManualClock
from tidewire_testkit.polling import until
from tidewire_testkit.telemetry import joined, make_table, put_tables, put_values, record_value

TENANT = TenantId(new_uid())
DEVICE = new_uid()
GROUP = "tidewire.test"
FAST = OwnerSettings(poll_seconds=0.02, first_retry_seconds=0.02, longest_retry_seconds=0.1)


class Memory:
    """A processor whose durable store is a dictionary that outlives it; takes and stores are apart, as in real ones."""

    def __init__(self, durable: dict[TopicPartition, tuple[int, list[float], bytes]] | None = None) -> None:
        self.durable = {} if durable is None else durable
        self.ledger: Ledger = {}
        self.taken: dict[TopicPartition, list[AdmittedRecord]] = {}
        self.refuse: set[float] = set()
        self.broken: str | None = None
        self.full: str | None = None
        self.loads = 0

    async def load(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Progress]:
        self.loads += 1
        answer = {}
        for partition in partitions:
            self.taken[partition] = []
            offset, _, entries = self.durable.get(partition, (None, [], b""))
            window = np.frombuffer(entries, "<u8").reshape(-1, 4) if entries else NO_ENTRIES
            answer[partition] = Progress(offset, window)
        return answer

    def take(self, record: AdmittedRecord) -> None:
        for piece in record.pieces:
            if self.refuse & set(piece.table.values.ravel().tolist()):
                raise RuntimeError("cannot be processed")
        self.taken[record.partition].append(record)

    async def settle(self) -> Mapping[TopicPartition, int]:
        return await self.flush(list(self.taken))

    async def flush(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        if self.broken is not None:
            raise RuntimeError(self.broken)
        if self.full is not None:
            return {}
        stored = {}
        for partition in partitions:
            for record in self.taken[partition]:
                _, values, entries = self.durable.get(partition, (0, [], b""))
                for piece in record.pieces:
                    rows = slice(None) if piece.rows is None else piece.rows
                    values = values + piece.table.values[:, rows].ravel().tolist()
                self.durable[partition] = (record.offset + 1, values, entries + record.entries.tobytes())
                add_to(self.ledger, record.ledger)
                stored[partition] = record.offset + 1
            self.taken[partition] = []
        return stored

    async def forget(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self.taken.pop(partition, None)

    def obstacle(self) -> str | None:
        return self.full

    @property
    def values(self) -> list[float]:
        return sorted(value for _, values, _ in self.durable.values() for value in values)

    def counts(self, tenant: TenantId) -> tuple[int, int, int]:
        """(accepted, duplicate, dead-lettered)"""
        found = [counts for (owner, _), counts in self.ledger.items() if owner == tenant]
        return (
            sum(counts.accepted for counts in found),
            sum(counts.duplicate for counts in found),
            sum(counts.dead_lettered for counts in found),
        )


def table(*values: float, batch: bytes | None = None):
    return make_table(
        TENANT, ["m"], [(DEVICE, number, [value]) for number, value in enumerate(values)], batch_id=batch
    )


def owner_of(log: EmbeddedLog, memory: Memory, **options) -> PartitionOwner:
    options = {"settings": FAST, **options}
    clock = options.pop("clock", SystemClock())
    return PartitionOwner(log, clock, memory, group=GROUP, topic=topics.TELEMETRY, **options)


async def committed(log: EmbeddedLog) -> dict[int, int]:
    return await log.committed(GROUP, topics.TELEMETRY)


async def test_records_have_their_effect_once_and_are_committed_after_it(log: EmbeddedLog) -> None:
    memory = Memory()
    owner = owner_of(log, memory)
    await owner.start()
    batch = new_uid()
    await put_tables(log, 1, table(1.0, 2.0, batch=batch))
    await put_tables(log, 1, joined([table(1.0, 2.0, batch=batch), table(3.0), table(1.0, 9.0, batch=batch)]))
    await put_tables(log, 2, table(4.0))
    await until(lambda: committed_is(log, {1: 2, 2: 1}))
    await owner.close()
    assert memory.values == [1.0, 1.0, 2.0, 3.0, 4.0, 9.0]
    assert memory.counts(TENANT) == (8, 2, 0)
    assert owner.check() is None
    assert owner.stats.duplicate_segments == 1


async def committed_is(log: EmbeddedLog, expected: Mapping[int, int]) -> bool:
    found = await committed(log)
    return {partition: found.get(partition) for partition in expected} == dict(expected)


async def test_a_restart_goes_on_where_the_effect_ended_with_the_window_it_had(log: EmbeddedLog) -> None:
    memory = Memory()
    batch = new_uid()
    owner = owner_of(log, memory)
    await owner.start()
    await put_tables(log, 0, table(1.0, batch=batch))
    await until(lambda: committed_is(log, {0: 1}))
    await owner.close()

    consumer = await log.consume(GROUP, [topics.TELEMETRY], _Nobody())
    await until(lambda: _joined(consumer))
    await consumer.commit({(topics.TELEMETRY, 0): 0})  # the log lags behind the effect, as after a kill
    await consumer.close()
    await put_tables(log, 0, table(1.0, batch=batch))
    await put_tables(log, 0, table(2.0))

    again = Memory(memory.durable)
    owner = owner_of(log, again)
    await owner.start()
    await until(lambda: committed_is(log, {0: 3}))
    await owner.close()
    assert again.values == [1.0, 2.0]
    assert again.counts(TENANT) == (2, 1, 0)


async def test_what_is_found_stored_is_committed_though_nothing_comes(log: EmbeddedLog) -> None:
    memory = Memory()
    owner = owner_of(log, memory)
    await owner.start()
    await put_tables(log, 0, table(1.0))
    await put_tables(log, 0, table(2.0))
    await until(lambda: committed_is(log, {0: 2}))
    await owner.close()
    consumer = await log.consume(GROUP, [topics.TELEMETRY], _Nobody())
    await until(lambda: _joined(consumer))
    await consumer.commit({(topics.TELEMETRY, 0): 1})  # as after a kill between the effect and its commit
    await consumer.close()

    owner = owner_of(log, Memory(memory.durable))
    await owner.start()
    await until(lambda: committed_is(log, {0: 2}))
    await owner.close()


class _Nobody:
    async def assigned(self, partitions: object) -> None:
        return None

    async def revoked(self, partitions: object) -> None:
        return None


async def _joined(consumer) -> bool:
    await consumer.poll(0.01)
    return len(consumer.assignment) == 4


async def test_a_record_that_cannot_be_decoded_is_dead_lettered(log: EmbeddedLog) -> None:
    memory = Memory()
    owner = owner_of(log, memory)
    await owner.start()
    good = record_value(table(1.0))
    wrong_count = record_value(table(2.0, 3.0)).replace(b"\x10\x02\x19", b"\x10\x05\x19")
    await put_values(log, 3, b"not protobuf", good, wrong_count, record_value(table(4.0)))
    await until(lambda: committed_is(log, {3: 4}))
    await owner.close()
    assert memory.values == [1.0, 4.0]
    letters = [DeadLetter.FromString(bytes(r.value)) for r in await log.read(topics.DEAD_LETTER, 0, 0)]
    assert [(letter.source_partition, letter.source_offset) for letter in letters] == [(3, 0), (3, 2)]
    assert letters[0].payload == b"not protobuf"
    assert letters[0].consumer_group == GROUP
    assert letters[0].reason == "MALFORMED"
    assert "5 readings" in letters[1].message
    assert letters[1].readings == 5
    assert memory.counts(UNKNOWN_TENANT) == (5, 0, 5)


async def test_a_record_that_cannot_be_processed_is_dead_lettered_and_may_come_again(
    log: EmbeddedLog,
) -> None:
    memory = Memory()
    memory.refuse = {2.0}
    owner = owner_of(log, memory)
    await owner.start()
    value = record_value(table(2.0))
    await put_values(log, 0, record_value(table(1.0)), value, record_value(table(3.0)))
    await until(lambda: committed_is(log, {0: 3}))
    assert memory.values == [1.0, 3.0]
    memory.refuse = set()
    await put_values(log, 0, value)  # replayed from the dead letters: not a duplicate, as it had no effect
    await until(lambda: committed_is(log, {0: 4}))
    await owner.close()
    assert memory.values == [1.0, 2.0, 3.0]


async def test_too_many_bad_records_stop_the_consumer_and_it_tries_again(log: EmbeddedLog) -> None:
    clock = ManualClock()
    memory = Memory()
    memory.refuse = {7.0}
    guard = PoisonGuard(window=100, share=0.01, least=3)
    owner = owner_of(log, memory, clock=clock, guard=guard)
    await owner.start()
    await put_values(log, 0, *(record_value(table(7.0)) for _ in range(5)), record_value(table(1.0)))
    why = await until(owner.check)
    assert "could not be processed" in why
    assert "cannot be processed" in why
    await until(lambda: committed_is(log, {0: 2}))
    assert len(await log.read(topics.DEAD_LETTER, 0, 0)) == 2, (
        "two were set aside, the third was one too many"
    )

    clock.advance(61)  # still bad: nothing more is diverted
    await until(lambda: "next try in 60 s" in (owner.check() or ""))
    assert len(await log.read(topics.DEAD_LETTER, 0, 0)) == 2

    memory.refuse = set()  # a repaired version
    clock.advance(61)
    await until(lambda: committed_is(log, {0: 6}))
    await owner.close()
    assert memory.values == [1.0, 7.0, 7.0, 7.0]
    assert owner.check() is None


async def test_a_failing_store_turns_health_red_and_nothing_is_lost(log: EmbeddedLog) -> None:
    memory = Memory()
    memory.broken = "the disk is on fire"
    owner = owner_of(log, memory)
    await owner.start()
    await put_tables(log, 0, table(1.0))
    assert "the disk is on fire" in await until(owner.check)
    await put_tables(log, 0, table(2.0))
    memory.broken = None
    await until(lambda: committed_is(log, {0: 2}))
    await until(lambda: owner.check() is None)
    await owner.close()
    assert memory.values == [1.0, 2.0]
    assert memory.counts(TENANT) == (2, 0, 0), "read again after the failure, counted once"


async def test_while_there_is_no_room_nothing_is_read(log: EmbeddedLog) -> None:
    memory = Memory()
    memory.full = "disk full"
    owner = owner_of(log, memory)
    await owner.start()
    await until(lambda: len(owner.partitions) == 4)
    assert owner.check() == "disk full"
    await put_tables(log, 0, table(1.0))
    memory.full = None
    await until(lambda: committed_is(log, {0: 1}))
    await owner.close()
    assert memory.values == [1.0]


async def test_partitions_move_between_owners_without_loss_or_repetition(
    log: EmbeddedLog, second_log: EmbeddedLog
) -> None:
    durable: dict[TopicPartition, tuple[int, list[float], bytes]] = {}
    first, second = Memory(durable), Memory(durable)
    one, other = owner_of(log, first), owner_of(second_log, second)
    await one.start()
    sent = []
    for number in range(40):
        await put_tables(log, number % 4, table(float(number)))
        sent.append(float(number))
        if number == 10:
            await other.start()
        if number == 20:
            await until(lambda: len(one.partitions) == 2 and len(other.partitions) == 2)
    await until(lambda: committed_is(log, dict.fromkeys(range(4), 10)))
    await one.close()
    await until(lambda: len(other.partitions) == 4)
    await put_tables(log, 0, table(100.0))
    await until(lambda: committed_is(log, {0: 11}))
    await other.close()
    assert sorted(value for _, values, _ in durable.values() for value in values) == [*sent, 100.0]
    total = first.counts(TENANT)[0] + second.counts(TENANT)[0]
    assert total == 41


async def test_a_table_without_rows_is_no_trouble(log: EmbeddedLog) -> None:
    memory = Memory()
    owner = owner_of(log, memory)
    await owner.start()
    await put_values(log, 0, record_value(), record_value(table(math.nan)), record_value(table(1.0)))
    await until(lambda: committed_is(log, {0: 3}))
    await owner.close()
    assert memory.counts(TENANT) == (1, 0, 0)
