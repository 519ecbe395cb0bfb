"""Old days for tests of the cold tier: published, merged, moved, and what came of it."""

import math
from pathlib import Path
from typing import Any

import duckdb

from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.rollups import DAY_US, MINUTE_US

SECOND = 1_000_000
DAY0 = 19_000 * DAY_US
Model = dict[tuple[int, str], float]


def place_of(rig: Any, device: Any) -> TopicPartitionKey:
    return TopicPartitionKey(rig.ingest._incarnation, rig.partition(device))


async def merged(rig: Any) -> None:
    """Everything that was published is stored, sealed and merged."""
    await rig.settled()
    await rig.accounts.cut_epochs()
    await rig.sealing.round()
    await rig.merging.round()


async def moved(rig: Any, device: Any) -> int:
    """The same, and moved to the cold tier."""
    await merged(rig)
    return int(await rig.cold.move(device.tenant.uid, place_of(rig, device)))


async def levels(rig: Any, device: Any) -> list[int]:
    found = await rig.store.find(device.tenant.uid, place_of(rig, device), 0, 1 << 62)
    return sorted(block.key.level for block in found)


async def publish(rig: Any, device: Any, model: Model, rows: list[tuple[int, list[float]]]) -> None:
    await rig.publish(device, ("a", "b"), rows)
    for time, cells in rows:
        model |= {(time, name): value for name, value in zip("ab", cells, strict=True) if value == value}


def two_days(step_us: int = 10 * MINUTE_US) -> list[tuple[int, list[float]]]:
    return [
        (DAY0 + at, [float(at // SECOND % 1013), math.nan if at % (3 * step_us) else float(at // MINUTE_US)])
        for at in range(0, 2 * DAY_US, step_us)
    ]


def objects(rig: Any) -> list[Path]:
    return sorted((rig.path / "cold").rglob("*.parquet"))


async def added_up(rig: Any, device: Any) -> None:
    account = (await rig.accounts.ledger(device.tenant.uid, 0, 1 << 62)).account
    assert account.difference == 0
    assert await rig.store.difference() == 0


def holding(rig: Any, device: Any) -> int:
    """Rows of a device in the objects."""
    (rows,) = duckdb.execute(
        "SELECT count(*) FROM read_parquet(?) WHERE device_uid = ?",
        [f"{rig.path}/cold/*/*/*.parquet", device.uid.hex()],
    ).fetchall()[0]
    return int(rows)
