"""Storage alone on Kafka and Cassandra: CPU to take records from Kafka and store them as L0 blocks in Cassandra.

Kafka is filled before, by records as ingestion writes them, and read by the real owner, processor and store in a
process of their own (`python -m benchmarks.distributed.bench_storage`). The bare driver then writes the same rows.
"""

import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import time

import psutil

from benchmarks.bench_storage import fill
from benchmarks.distributed.partitions import PARTITIONS
from benchmarks.figures import ROOT, Figure, Scale
from tidewire_kit import topics
from tidewire_kit.cassandra import CassandraSession, CassandraSettings, connect
from tidewire_kit.cassandra.schema import apply
from tidewire_kit.cassandra.steps import SchemaSet
from tidewire_kit.clock import SystemClock
from tidewire_kit.ids import TenantId, partition_of
from tidewire_kit.log.kafka import KafkaLog, KafkaSettings
from tidewire_kit.settings import load
from tidewire_storage.adapters.cassandra import SCHEMA_DIRECTORY, CassandraStore
from tidewire_storage.application.ingest import IngestLimits, IngestReadings
from tidewire_storage.consumer import telemetry_owner
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_testkit.servers.cassandra import CassandraCluster
from tidewire_testkit.servers.kafka import KafkaCluster

MILLION = 1_000_000


def run(scale: Scale) -> list[Figure]:
    """Readings per CPU second of the storage process, and its byte rate beside a bare driver's."""
    readings = 12_000_000 if scale.rounds > 1 else 2_000_000
    runs: list[dict[str, float]] = []
    bare: list[float] = []
    with KafkaCluster() as kafka, CassandraCluster() as cassandra:
        environ = {**kafka.environ(), **cassandra.environ()}
        asyncio.run(_fill(environ, readings))
        for _ in range(min(3, scale.rounds)):
            keyspaces = {
                name: environ | {"TIDEWIRE_CASSANDRA_KEYSPACE": f"bench_{secrets.token_hex(4)}"}
                for name in ("platform", "bare")
            }
            for mine in keyspaces.values():
                asyncio.run(_make_tables(mine))
            runs.append(_child("benchmarks.distributed.bench_storage", keyspaces["platform"]))
            copied = _child(
                "benchmarks.distributed.bare_driver",
                keyspaces["platform"],
                *("--contact-point", cassandra.contact_points),
                *("--source", keyspaces["platform"]["TIDEWIRE_CASSANDRA_KEYSPACE"]),
                *("--target", keyspaces["bare"]["TIDEWIRE_CASSANDRA_KEYSPACE"]),
            )
            bare.append(copied["bytes"] / copied["seconds"])
            for mine in keyspaces.values():
                asyncio.run(_drop(mine))
    speed = statistics.median(each["readings"] / each["cpu_seconds"] for each in runs)
    rate = statistics.median(each["bytes"] / each["seconds"] for each in runs)
    wall = statistics.median(each["readings"] / each["seconds"] for each in runs)
    driver = statistics.median(bare)
    return [
        Figure(
            "storage: Kafka → Cassandra, L0 blocks",
            speed / MILLION,
            "M readings/s/core",
            3,
            f"{PARTITIONS} partitions, one process; {wall / MILLION:.1f} M readings/s beside both servers",
        ),
        Figure(
            "storage: bytes of blocks, of the bare driver's rate",
            rate / driver * 100,
            "%",
            70,
            f"{rate / 1e6:.1f} of {driver / 1e6:.1f} MB/s",
        ),
    ]


def _child(module: str, environ: dict[str, str], *arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environ,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


async def _fill(environ: dict[str, str], readings: int) -> None:
    log = KafkaLog(load(KafkaSettings, environ))
    await log.start()
    await log.ensure_topics(topics.specs(PARTITIONS))
    await fill(log, PARTITIONS, readings)
    await log.close()


async def _session(environ: dict[str, str], keyspace: bool = True) -> CassandraSession:
    settings = load(CassandraSettings, environ)
    return await (connect(settings) if keyspace else connect(settings, keyspace=None))


async def _make_tables(environ: dict[str, str]) -> None:
    session = await _session(environ, keyspace=False)
    await apply(session, [SchemaSet("storage", SCHEMA_DIRECTORY)])
    await session.close()


async def _drop(environ: dict[str, str]) -> None:
    session = await _session(environ, keyspace=False)
    await session.execute_cql(f"DROP KEYSPACE {environ['TIDEWIRE_CASSANDRA_KEYSPACE']}", timeout_seconds=60)
    await session.close()


async def _store_all(environ: dict[str, str]) -> dict[str, float]:
    """Stores the whole topic and returns what it took."""
    log = KafkaLog(load(KafkaSettings, environ))
    await log.start()
    await log.ensure_topics(topics.specs(PARTITIONS))
    incarnation = log.incarnation(topics.TELEMETRY)
    clock = SystemClock()

    def place_of(tenant: TenantId, device_uid: bytes) -> TopicPartitionKey:
        return TopicPartitionKey(incarnation, partition_of(tenant, device_uid, PARTITIONS))

    store = CassandraStore(lambda: _session(environ), clock, topics.TELEMETRY, place_of)
    await store.open()
    ingest = IngestReadings(store, clock, incarnation, IngestLimits())
    owner = telemetry_owner(log, clock, ingest)
    ends = await log.end_offsets(topics.TELEMETRY)
    process = psutil.Process()
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    await owner.start()
    while sum((await store.progress_offsets(incarnation)).values()) < sum(ends):
        await asyncio.sleep(0.1)
        if why := owner.check():
            raise RuntimeError(why)
    cpu, seconds = sum(process.cpu_times()[:2]) - before, time.monotonic() - began
    (usage,) = await store.usage(None)
    await owner.close()
    await store.close()
    await log.close()
    return {
        "cpu_seconds": cpu,
        "seconds": seconds,
        "readings": usage.stored_readings,
        "bytes": usage.stored_bytes,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_store_all(dict(os.environ)))))
