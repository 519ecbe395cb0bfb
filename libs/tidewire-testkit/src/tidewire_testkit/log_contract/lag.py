"""Cases: how far a group is behind, as `tidewire_kit.log.lag` says it of any log."""

# ruff: noqa: D102 (the name of a case says what it tests)

import time

from tidewire_kit.log import TopicSpec
from tidewire_kit.log.lag import Lag, LagWatch, measure
from tidewire_kit.observability.metrics import new_registry
from tidewire_testkit.log_contract.support import (
    MessageLogFactory,
    RecordingHandler,
    fresh_group,
    fresh_topic,
    poll_many,
    record,
)
from tidewire_testkit.polling import until


def _now_us() -> int:
    return time.time_ns() // 1000


class LagCases:
    """What is durable and not committed, and how old the oldest of it is."""

    async def test_lag_is_what_is_not_committed_and_the_age_of_the_oldest(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        log = await message_log_factory()
        topic, group = fresh_topic(), fresh_group()
        await log.ensure_topics([TopicSpec(topic, partitions=4)])
        assert await measure(log, group, topic, _now_us()) == Lag(0, 0.0)
        await log.produce(topic, [record(p % 4, b"x") for p in range(10)])
        later_us = _now_us() + 3_600_000_000
        behind = await measure(log, group, topic, later_us)
        assert behind.records == 10
        assert 3_600 <= behind.seconds < 3_660, "all were written within the last minute"

        consumer = await log.consume(group, [topic], RecordingHandler())
        await poll_many(consumer, 10)
        await consumer.commit({(topic, 0): 2, (topic, 1): 3, (topic, 2): 2})
        assert (await measure(log, group, topic, later_us)).records == 3
        await consumer.commit({(topic, 0): 3, (topic, 3): 2})
        assert await measure(log, group, topic, later_us) == Lag(0, 0.0)
        await consumer.close()

    async def test_lag_is_shown_while_it_is_known(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic, group = fresh_topic(), fresh_group()
        await log.ensure_topics([TopicSpec(topic, partitions=2)])
        registry = new_registry()
        watch = LagWatch(log, _now_us, group, topic, registry, look_seconds=0.05)
        labels = {"group": group, "topic": topic}

        def shown(unit: str) -> float | None:
            return registry.get_sample_value(f"tidewire_consumer_lag_{unit}", labels)

        assert shown("records") is None
        await watch.start()
        try:
            await until(lambda: (shown("records"), shown("seconds")) == (0, 0))
            await log.produce(topic, [record(1, b"x"), record(1, b"y")])
            await until(lambda: shown("records") == 2)
            await until(lambda: (shown("seconds") or 0) > 0.1)
        finally:
            await watch.close()
