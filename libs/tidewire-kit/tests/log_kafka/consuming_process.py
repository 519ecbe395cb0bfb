"""A process that consumes and commits until it is ended. Started by `test_rebalance`.

    python consuming_process.py BOOTSTRAP PREFIX PROTOCOL

Prints a line for everything that happens: `assigned P`, `revoked P`, `committed P OFFSET`, `refused REASON`.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence

from tidewire_kit.errors import TidewireError
from tidewire_kit.log import TopicPartition, TopicSpec
from tidewire_kit.log.kafka import KafkaLog, KafkaSettings

TOPIC = TopicSpec("rebalance.v1", partitions=4)
GROUP = "tidewire.storage"


class _Handler:
    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int] | None:
        for _, partition in partitions:
            print("assigned", partition, flush=True)
        return None

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        for _, partition in partitions:
            print("revoked", partition, flush=True)


async def main(bootstrap_servers: str, prefix: str, protocol: str) -> None:
    settings = KafkaSettings(
        bootstrap_servers=bootstrap_servers,
        topic_prefix=prefix,
        replication_factor=1,
        session_timeout_ms=6000,
        group_protocol="consumer" if protocol == "consumer" else "classic",
    )
    log = KafkaLog(settings)
    await log.start()
    await log.ensure_topics([TOPIC])
    consumer = await log.consume(GROUP, [TOPIC.name], _Handler())
    while True:
        # Commits before it asks for more, as an owner does that was stopped between its work and its commit.
        for topic, partition in sorted(consumer.assignment):
            offset = consumer.position(topic, partition)
            try:
                await consumer.commit({(topic, partition): offset})
                print("committed", partition, offset, flush=True)
            except TidewireError as error:
                print("refused", error.reason, flush=True)
        await consumer.poll(0.1)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
