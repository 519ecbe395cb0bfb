"""Cases: compacted topics."""

# ruff: noqa: D102 (the name of a case says what it tests)

import asyncio

import pytest

from tidewire_kit.errors import InvalidArgument
from tidewire_kit.log import (
    TopicSpec,
)
from tidewire_testkit.log_contract.capabilities import Capable, needs
from tidewire_testkit.log_contract.support import (
    Followed,
    MessageLogFactory,
    fresh_topic,
    record,
)
from tidewire_testkit.polling import until


class TableCases(Capable):
    """A table replays the state, then follows."""

    async def test_a_table_replays_the_state_then_follows(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        writer, reader = await message_log_factory(), await message_log_factory()
        topic = fresh_topic()
        for log in (writer, reader):
            await log.ensure_topics([TopicSpec(topic, compacted=True)])
        await writer.put(topic, [(b"a", b"1"), (b"b", b"1"), (b"c", b"1")])
        await writer.put(topic, [(b"a", b"2"), (b"b", None), (b"d", b""), (b"d", b"4")])
        table = Followed(reader.table(topic))
        await table.caught_up()
        assert table.state == {b"a": b"2", b"c": b"1", b"d": b"4"}
        replayed = [item for batch in table.batches for item in batch]
        assert sorted(replayed) == [(b"a", b"2"), (b"c", b"1"), (b"d", b"4")]
        assert table.batches[-1] == [], "the mark"

        await writer.put(topic, [(b"a", None), (b"e", b"5")])
        await until(lambda: table.state == {b"c": b"1", b"d": b"4", b"e": b"5"})
        await writer.put(topic, [(b"a", b"again")])
        await until(lambda: table.state.get(b"a") == b"again")
        await table.close()

    async def test_an_empty_table_catches_up(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, compacted=True)])
        table = Followed(log.table(topic))
        await table.caught_up()
        assert table.batches == [[]]
        await table.close()

    async def test_a_large_table_replays_each_key_once_while_it_changes(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, compacted=True)])
        await log.put(topic, [(b"%d" % n, b"old") for n in range(9000)])
        table = Followed(log.table(topic))
        await log.put(topic, [(b"%d" % n, b"new") for n in range(0, 9000, 3)])
        await table.caught_up()
        assert len(table.state) == 9000
        assert max(map(len, table.batches)) <= 4096
        await until(lambda: sum(value == b"new" for value in table.state.values()) == 3000)
        await table.close()

    async def test_changes_come_in_order_from_several_writers(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        one, two = await message_log_factory(), await message_log_factory()
        topic = fresh_topic()
        for log in (one, two):
            await log.ensure_topics([TopicSpec(topic, compacted=True)])
        table = Followed(one.table(topic))
        await asyncio.gather(
            *(log.put(topic, [(b"%d" % n, b"%d" % n)]) for n in range(50) for log in (one, two))
        )
        await one.put(topic, [(b"7", None)])
        await two.put(topic, [(b"7", b"last")])
        await until(lambda: len(table.state) == 50 and table.state[b"7"] == b"last")
        await table.close()

    @needs("atomic_put")
    async def test_who_begins_during_a_put_sees_all_of_it_or_nothing(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        writer, reader = await message_log_factory(), await message_log_factory()
        topic = fresh_topic()
        for log in (writer, reader):
            await log.ensure_topics([TopicSpec(topic, compacted=True)])

        async def put_for_ever() -> None:
            version = 0
            while True:
                version += 1
                await writer.put(topic, [(b"%d" % n, b"%d" % version * 500) for n in range(5000)])

        async def versions_at_the_mark() -> int:
            state: dict[bytes, bytes | None] = {}
            table = reader.table(topic)
            async for batch in table:
                state.update(batch)
                if not batch:
                    break
            await table.close()
            return len(set(state.values()))

        putting = asyncio.create_task(put_for_ever())
        try:
            for _ in range(3):
                found = await asyncio.gather(*(versions_at_the_mark() for _ in range(4)))
                assert max(found) <= 1, found
        finally:
            putting.cancel()
            await asyncio.gather(putting, return_exceptions=True)

    async def test_tables_and_streams_are_not_mixed_up(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        table, stream = fresh_topic(), fresh_topic()
        await log.ensure_topics([TopicSpec(table, compacted=True), TopicSpec(stream)])
        with pytest.raises(InvalidArgument, match="compacted"):
            await log.produce(table, [record(0, b"x")])
        with pytest.raises(InvalidArgument, match="stream"):
            await log.put(stream, [(b"a", b"1")])
        with pytest.raises(InvalidArgument, match="stream"):
            log.table(stream)
