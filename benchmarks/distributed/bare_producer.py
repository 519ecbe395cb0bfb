"""A bare producer: sends given records as fast as the broker acknowledges them. What Kafka alone gives on this machine.

Started by `bench_ingestion` as a process of its own, with a directory that holds one file per record, named
`{number}-{partition}`. Same guarantees as the platform's: idempotent, acknowledged by all replicas. Prints
{"records", "bytes", "seconds", "cpu_seconds"} as JSON.
"""

import argparse
import json
import time
from pathlib import Path

import psutil
from confluent_kafka import KafkaException, Producer


def main() -> None:
    """Sends, waits for the last acknowledgement, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=5)
    args = parser.parse_args()
    records = [
        (int(path.name.rpartition("-")[2]), path.read_bytes()) for path in sorted(args.records.iterdir())
    ]
    failures = []
    producer = Producer(
        {
            "bootstrap.servers": args.bootstrap_servers,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 1,
            "queue.buffering.max.kbytes": 128 << 10,
            "message.max.bytes": 2_000_000,
        }
    )

    def delivered(error, _message):
        if error is not None:
            failures.append(error)

    process = psutil.Process()
    before, began = sum(process.cpu_times()[:2]), time.perf_counter()
    sent = size = 0
    while time.perf_counter() < began + args.seconds:
        for partition, value in records:
            while True:
                try:
                    producer.produce(args.topic, value, partition=partition, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.05)
            sent += 1
            size += len(value)
        producer.poll(0)
    producer.flush()
    seconds = time.perf_counter() - began
    if failures:
        raise KafkaException(failures[0])
    cpu = sum(process.cpu_times()[:2]) - before
    print(json.dumps({"records": sent, "bytes": size, "seconds": seconds, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main()
