"""A month of a large fleet, put into a platform's data directory as storage itself would have it by then.

`bench_month` runs it (`python -m benchmarks.month_data --help`) while no platform runs there. Readings go the way that
they go in the service - gathered, flushed, sealed, merged by day, rolled up, by storage's own code and into its own
store - but for the log: of each day and partition it gets one empty record, whose readings are made here. What is on
the disk in the end is what a month of minutes would have left: days merged day by day.
"""

import argparse
import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.data import DAY_US, METRICS, Fleet
from benchmarks.figures import progress
from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.directory import Retention
from tidewire_kit.ids import TenantId, partition_of
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.log.port import Outgoing
from tidewire_kit.owner import AdmittedRecord, LedgerCounts, PieceOfTable, hour_of
from tidewire_kit.owner.port import NO_ENTRIES
from tidewire_kit.settings import CommonSettings
from tidewire_kit.telemetry.record import Table, encode_record
from tidewire_storage.adapters.embedded import EmbeddedStore
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.ingest import IngestLimits, IngestReadings
from tidewire_storage.application.merge import MergeEpochs, MergeLimits
from tidewire_storage.application.rollup import Rollup
from tidewire_storage.application.seal import SealEpochs

START_US = 1_698_796_800_000_000
"""2023-11-01T00:00:00Z."""
MONTH = (2023, 11)
DAYS = 30
ROWS_A_DAY = 225
"""A row every 384 s."""
_RECORD_DEVICES = 2_000
"""With a day of each a record has fewer than 2^20 rows, as a record must."""
_LATE_US = 7_200_000_000
"""Log time of a day's readings, after its start."""


def fleet_of(devices: int) -> Fleet:
    """The standard fleet, larger, and slower."""
    return Fleet(device_count=devices, interval_us=DAY_US // ROWS_A_DAY)


@dataclass(frozen=True, slots=True)
class Piece:
    """Devices of a partition whose day is one record."""

    partition: int
    number: int
    of: int
    """Pieces of the partition."""
    devices: np.ndarray
    """(n,): their numbers."""


def partitions_of(tenant: TenantId, uids: np.ndarray, partitions: int) -> np.ndarray:
    """Each device's partition."""
    return np.array([partition_of(tenant, uid.tobytes(), partitions) for uid in uids])


def pieces_of(partition: np.ndarray, partitions: int) -> list[Piece]:
    """All devices, in order of partition."""
    pieces = []
    for number in range(partitions):
        members = np.flatnonzero(partition == number)
        parts = np.array_split(members, -(-len(members) // _RECORD_DEVICES))
        pieces += [Piece(number, place, len(parts), part) for place, part in enumerate(parts)]
    return pieces


class Month:
    """Storage's parts, as its `main` puts them together, over a directory."""

    def __init__(self, log: EmbeddedLog, store: EmbeddedStore) -> None:
        clock = SystemClock()
        self._log = log
        self._store = store
        self._incarnation = log.incarnation(topics.TELEMETRY)
        self._partitions = [(topics.TELEMETRY, number) for number in range(log.partitions(topics.TELEMETRY))]
        self._ingest = ingest = IngestReadings(store, clock, self._incarnation, IngestLimits())
        self._sealing = SealEpochs(store, lambda: ingest.places, lambda: ingest.buried)
        directories = Directories(store)
        self._merging = MergeEpochs(
            store,
            Rollup(store, directories, clock, lambda tenant: Retention()),
            lambda: ingest.places,
            lambda: ingest.buried,
            self._sealing.lock,
            clock,
            MergeLimits(),
        )

    async def fill(self, tenant: TenantId, uids: np.ndarray, days: int) -> int:
        """Stores, seals and merges day after day; returns the readings. `uids` (devices, 16), in order of number."""
        await self._ingest.load(self._partitions)
        fleet = fleet_of(len(uids))
        count = len(self._partitions)
        partition = partitions_of(tenant, uids, count)
        pieces = pieces_of(partition, count)
        readings, began = 0, time.monotonic()
        work = [(day, piece) for day in range(days) for piece in pieces]
        ahead = asyncio.create_task(_made(fleet, tenant, uids, *work[0]))
        for place, (day, piece) in enumerate(work):
            table = await ahead
            if place + 1 < len(work):
                ahead = asyncio.create_task(_made(fleet, tenant, uids, *work[place + 1]))
            log_time_us = START_US + day * DAY_US + _LATE_US
            accepted = table.values.size
            self._ingest.take(
                AdmittedRecord(
                    self._partitions[piece.partition],
                    day * piece.of + piece.number,
                    log_time_us,
                    [PieceOfTable(table, 0)],
                    [((tenant, hour_of(log_time_us)), LedgerCounts(accepted=accepted))],
                    NO_ENTRIES,
                )
            )
            del table
            await self._ingest.flush([self._partitions[piece.partition]])
            readings += accepted
            if piece is pieces[-1]:
                await self._end_of_day()
                speed = readings / (time.monotonic() - began) / 1e6
                progress(f"day {day + 1} of {days}, {readings / 1e6:,.0f} M readings, {speed:.1f} M/s")
        return readings

    async def _end_of_day(self) -> None:
        request = await self._store.request_cut()
        while len(await self._store.cuts_noted(request)) < len(self._partitions):
            await self._ingest.settle()
            await asyncio.sleep(0.01)
        await self._sealing.round()
        await self._merging.round()


async def _made(fleet: Fleet, tenant: TenantId, uids: np.ndarray, day: int, piece: Piece) -> Table:
    """A day of a piece's devices."""
    devices = piece.devices
    index, times, values = await asyncio.to_thread(
        fleet.rows_of, devices, day * ROWS_A_DAY, ROWS_A_DAY, START_US + fleet.interval_us // 2
    )
    one = np.zeros(1, np.uint64)
    return Table(
        tenant,
        tuple(METRICS),
        np.ascontiguousarray(uids[devices]),
        index,
        times,
        values,
        np.zeros((1, 16), np.uint8),
        np.zeros((1, 16), np.uint8),
        one,
        one,
        np.array([len(times)], np.uint32),
        np.array([values.size], np.uint32),
        np.zeros(1, np.int64),
    )


async def make(directory: Path, tenant: TenantId, uids: np.ndarray, days: int) -> int:
    """Fills a data directory; returns the readings."""
    log = EmbeddedLog(directory, EmbeddedLogSettings(min_free_bytes=0))
    await log.start()
    await log.ensure_topics(topics.specs(CommonSettings().partitions))
    empty = encode_record([], 0, START_US)
    count = log.partitions(topics.TELEMETRY)
    pieces = pieces_of(partitions_of(tenant, uids, count), count)
    await log.produce(
        topics.TELEMETRY, [Outgoing(piece.partition, b"", empty) for piece in pieces for _ in range(days)]
    )
    store = EmbeddedStore(directory / "storage")
    await store.open()
    try:
        readings = await Month(log, store).fill(tenant, uids, days)
        await store.sweep()  # files that hold little but what was merged, as storage does every ten minutes
        return readings
    finally:
        await store.close()
        await log.close()


def main() -> None:
    """Prints {"readings"} as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tenant", required=True, help="uid, 32 hexadecimal digits")
    parser.add_argument("--uids", type=Path, required=True, help=".npy of the devices' uids (devices, 16)")
    parser.add_argument("--days", type=int, default=DAYS)
    args = parser.parse_args()
    tenant = TenantId(bytes.fromhex(args.tenant))
    readings = asyncio.run(make(args.directory, tenant, np.load(args.uids), args.days))
    print(json.dumps({"readings": readings}))


if __name__ == "__main__":
    main()
