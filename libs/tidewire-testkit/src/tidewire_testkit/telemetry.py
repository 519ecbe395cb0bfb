"""Builders of telemetry records for the tests of their readers: rows in, tables and log records out."""

import itertools
from collections.abc import Sequence

import numpy as np

from tidewire_kit import topics
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.log.port import MessageLog, Outgoing
from tidewire_kit.telemetry.record import Table, encode_record

Row = tuple[bytes, int, Sequence[float]]
"""(device uid, event time in µs, a value per metric; NaN: no reading)."""

_NO_PUBLISHER = bytes(16)


def make_table(
    tenant: TenantId,
    metrics: Sequence[str],
    rows: Sequence[Row],
    *,
    batch_id: bytes | None = None,
    publisher: bytes = _NO_PUBLISHER,
    received_us: int = 0,
) -> Table:
    """Returns a table of one segment. `batch_id` None: a new one. The digest is a function of the rows."""
    order = {uid: number for number, uid in enumerate(dict.fromkeys(uid for uid, _, _ in rows))}
    values = np.array([values for _, _, values in rows], np.float64).reshape(len(rows), len(metrics)).T
    digest = hash_of(rows)
    return Table(
        tenant,
        tuple(metrics),
        np.frombuffer(b"".join(order), np.uint8).reshape(-1, 16),
        np.array([order[uid] for uid, _, _ in rows], np.uint32),
        np.array([time for _, time, _ in rows], np.int64),
        np.ascontiguousarray(values),
        np.frombuffer(publisher, np.uint8).reshape(1, 16),
        np.frombuffer(batch_id or new_uid(), np.uint8).reshape(1, 16),
        np.array([digest], np.uint64),
        np.zeros(1, np.uint64),
        np.array([len(rows)], np.uint32),
        np.array([int(np.count_nonzero(~np.isnan(values)))], np.uint32),
        np.array([received_us], np.int64),
    )


def joined(tables: Sequence[Table]) -> Table:
    """Tables of one tenant and metric set as one table with all their segments, as the producer gathers them."""
    starts = list(itertools.accumulate([0, *(len(table.device_uids) for table in tables[:-1])]))
    return Table(
        tables[0].tenant,
        tables[0].metrics,
        np.concatenate([table.device_uids for table in tables]),
        np.concatenate(
            [table.device_index + np.uint32(start) for table, start in zip(tables, starts, strict=True)]
        ),
        np.concatenate([table.time_unix_us for table in tables]),
        np.concatenate([table.values for table in tables], axis=1),
        np.concatenate([table.segment_publisher_uids for table in tables]),
        np.concatenate([table.segment_batch_ids for table in tables]),
        np.concatenate([table.segment_digests for table in tables]),
        np.concatenate([table.segment_sequences for table in tables]),
        np.concatenate([table.segment_rows for table in tables]),
        np.concatenate([table.segment_readings for table in tables]),
        np.concatenate([table.segment_received_us for table in tables]),
    )


def record_value(*tables: Table) -> bytes:
    """The bytes of a record with these tables."""
    readings = sum(int(table.segment_readings.sum()) for table in tables)
    received = min((int(table.segment_received_us.min()) for table in tables), default=0)
    return b"".join(bytes(piece) for piece in encode_record(tables, readings, received))


async def put_tables(log: MessageLog, partition: int, *tables: Table) -> int:
    """Appends a record with these tables to the telemetry topic and returns its offset."""
    (offset,) = await put_values(log, partition, record_value(*tables))
    return offset


async def put_values(log: MessageLog, partition: int, *values: bytes) -> list[int]:
    """Appends records of any bytes to the telemetry topic and returns their offsets."""
    return await log.produce(topics.TELEMETRY, [Outgoing(partition, b"", [value]) for value in values])


def hash_of(rows: Sequence[Row]) -> int:
    """A 64-bit digest of rows."""
    return hash(tuple((uid, time, tuple(map(str, values))) for uid, time, values in rows)) & ((1 << 64) - 1)
