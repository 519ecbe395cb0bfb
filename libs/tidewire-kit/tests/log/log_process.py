"""A process that writes to or consumes from a log until it is killed. Started by `test_processes`.

    python log_process.py write DATA_DIR LEDGER NAME    notes each acknowledged record in LEDGER, after the fact
    python log_process.py consume DATA_DIR LEDGER NAME  notes each record, then commits

A ledger line is a whole `write` to a file opened for appending, so a kill cuts no line in two.
"""

import asyncio
import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.log import MessageLog, Outgoing, TopicPartition, TopicSpec
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings

TOPIC = TopicSpec("processes.v1", partitions=4)
GROUP = "tidewire.storage"
SETTINGS = EmbeddedLogSettings(
    segment_bytes=200_000,
    preallocate_bytes=50_000,
    min_free_bytes=0,
    member_timeout_seconds=3600,  # so that only the lock of a dead process can give it away
)


async def write(log: MessageLog, ledger: int, name: str) -> None:
    counter = 0

    async def one_after_the_other(lane: int) -> None:
        nonlocal counter
        while True:
            batch = []
            for _ in range(random.randint(1, 5)):
                counter += 1
                value = f"{name}/{lane}/{counter}".encode()
                batch.append(
                    Outgoing(
                        random.randrange(TOPIC.partitions),
                        name.encode(),
                        [value, b"." * random.randint(0, 3000)],
                    )
                )
            offsets = await log.produce(TOPIC.name, batch)
            lines = [
                f"{out.partition} {offset} {bytes(out.value[0]).decode()}\n"
                for out, offset in zip(batch, offsets, strict=True)
            ]
            os.write(ledger, "".join(lines).encode())

    await asyncio.gather(*(one_after_the_other(lane) for lane in range(3)))


class _Handler:
    def __init__(self, ledger: int, name: str) -> None:
        self.ledger = ledger
        self.name = name

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int] | None:
        os.write(self.ledger, f"assigned {self.name} {len(partitions)}\n".encode())
        return None

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        os.write(self.ledger, f"revoked {self.name} {len(partitions)}\n".encode())


async def consume(log: MessageLog, ledger: int, name: str) -> None:
    consumer = await log.consume(GROUP, [TOPIC.name], _Handler(ledger, name))
    while True:
        found = await consumer.poll(0.2)
        if found:
            lines = [f"{r.partition} {r.offset} {bytes(r.value).rstrip(b'.').decode()}\n" for r in found]
            os.write(ledger, "".join(lines).encode())
            await consumer.commit({(r.topic, r.partition): r.offset + 1 for r in found})


async def main(role: str, data_dir: Path, ledger: str, name: str) -> None:
    log = EmbeddedLog(data_dir, SETTINGS)
    await log.start()
    await log.ensure_topics([TOPIC])
    descriptor = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        await {"write": write, "consume": consume}[role](log, descriptor, name)
    except FailedPrecondition as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
