"""The tables of a statement as Arrow IPC, batch by batch, from the same reads as the other queries.

A scan reads no further than it is asked to, so memory holds what the block reader holds, whatever the statement asks.
"""

import asyncio
import io
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass

import nanoarrow
import numpy as np
from nanoarrow import ipc
from nanoarrow.c_array import CArray
from nanoarrow.c_array_stream import CArrayStream
from numpy.typing import NDArray

from tidewire_kit.ids import TenantId
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.latest import SeriesDirectory
from tidewire_storage.application.names import Names
from tidewire_storage.application.sweep import MAX_US, MIN_US, Wanted, sweep
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.collapse import Collapsed
from tidewire_storage.ports import BlockReader

_BATCH_CELLS = 1 << 16
_PAGE = 10_000
_TIME = nanoarrow.timestamp("us", timezone="UTC")
_LABELS = nanoarrow.map_(nanoarrow.string(), nanoarrow.string())


@dataclass(frozen=True, slots=True)
class ScanBounds:
    """What a scan can need at most; None: not bounded. Times in µs, both included."""

    first_us: int | None = None
    last_us: int | None = None
    devices: frozenset[str] | None = None
    metrics: frozenset[str] | None = None


class _Encoder:
    """Makes one Arrow IPC stream, a batch at a time."""

    def __init__(self, schema: dict[str, object]) -> None:
        self._out = io.BytesIO()
        self._writer = ipc.StreamWriter.from_writable(self._out)
        self._schema = nanoarrow.c_schema(nanoarrow.struct(schema))
        self._writer.write_stream(CArrayStream.from_c_arrays([], self._schema))

    def batch(self, rows: int, columns: Sequence[CArray]) -> bytes:
        """The bytes of a batch, the first time with those of the schema before it."""
        self._writer.write_array(
            nanoarrow.c_array_from_buffers(self._schema, rows, [None], children=columns, move=True)
        )
        return self._taken()

    def end(self) -> bytes:
        """What closes the stream."""
        self._writer.close()
        return self._taken()

    def _taken(self) -> bytes:
        data = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return data


class SqlTables:
    """The tables of a tenant."""

    def __init__(
        self,
        store: BlockReader,
        directories: Directories,
        names: Names,
        series: SeriesDirectory,
        incarnation: bytes,
    ) -> None:
        self._store = store
        self._directories = directories
        self._names = names
        self._series = series
        self._incarnation = incarnation

    async def scan(
        self, tenant: TenantId, table: str, bounds: ScanBounds
    ) -> AsyncGenerator[tuple[bytes, int]]:
        """(part of an Arrow IPC stream, readings in it), schema first. KeyError: there is no such table."""
        scan = {"readings": self._readings, "devices": self._devices, "series": self._all_series}[table]
        async for part in scan(tenant, bounds):
            yield part

    async def _readings(self, tenant: TenantId, bounds: ScanBounds) -> AsyncGenerator[tuple[bytes, int]]:
        encoder = _Encoder(
            {
                "device": nanoarrow.string(),
                "metric": nanoarrow.string(),
                "time": _TIME,
                "value": nanoarrow.float64(),
            }
        )
        start = MIN_US if bounds.first_us is None else max(MIN_US, bounds.first_us)
        end = MAX_US if bounds.last_us is None else min(MAX_US, bounds.last_us + 1)
        metrics = None if bounds.metrics is None else tuple(sorted(bounds.metrics))
        if start < end and metrics != ():
            for partition, ids, wanted in self._by_partition(tenant, bounds.devices):
                place = TopicPartitionKey(self._incarnation, partition)
                text = _Texts(ids)
                async for rows in sweep(
                    self._store, self._directories, tenant, place, wanted, metrics, start, end
                ):
                    step = max(1, _BATCH_CELLS // max(1, len(rows.metrics)))
                    for first in range(0, len(rows), step):
                        piece = rows.slice(first, first + step)
                        yield await asyncio.to_thread(_long, encoder, piece, text)
        yield encoder.end(), 0

    def _by_partition(
        self, tenant: TenantId, chosen: Collection[str] | None
    ) -> list[tuple[int, list[str], Wanted]]:
        devices = self._names.tenant(tenant).devices
        places: dict[int, list[tuple[str, int]]] = {}
        for device_id in devices.slot_of if chosen is None else sorted(chosen):
            slot = devices.slot_of.get(device_id)
            if slot is not None:
                places.setdefault(int(devices.partition[slot]), []).append((device_id, slot))
        return [
            (
                partition,
                [name for name, _ in found],
                Wanted([devices.uids[slot].tobytes() for _, slot in found]),
            )
            for partition, found in sorted(places.items())
        ]

    async def _devices(self, tenant: TenantId, bounds: ScanBounds) -> AsyncGenerator[tuple[bytes, int]]:
        encoder = _Encoder(
            {
                "id": nanoarrow.string(),
                "type": nanoarrow.string(),
                "labels": _LABELS,
                "parent": nanoarrow.string(),
                "create_time": _TIME,
            }
        )
        devices = await self._names.select(tenant)
        for first in range(0, len(devices), _PAGE):
            some = devices.slice(first, first + _PAGE)
            facts = [devices.table.facts[slot] for slot in some.slots.tolist()]
            columns = [
                _strings(some.ids),
                _strings(["" if one is None else one.type for one in facts]),
                _maps([{} if one is None else one.labels for one in facts]),
                _strings(["" if one is None else one.parent_id for one in facts]),
                _times(devices.table.created_us[some.slots]),
            ]
            yield encoder.batch(len(some), columns), 0
        yield encoder.end(), 0

    async def _all_series(self, tenant: TenantId, bounds: ScanBounds) -> AsyncGenerator[tuple[bytes, int]]:
        encoder = _Encoder(
            {
                "device": nanoarrow.string(),
                "metric": nanoarrow.string(),
                "first_time": _TIME,
                "last_time": _TIME,
                "last_value": nanoarrow.float64(),
            }
        )
        token = ""
        while True:
            page = await self._series.page(tenant, [], [], _PAGE, token)
            for part in page.parts:
                columns = [
                    _Texts(part.device_ids).column(part.device),
                    _Texts(part.metrics).column(part.metric),
                    _times(part.first_us),
                    _times(part.last_us),
                    _values(part.value),
                ]
                yield encoder.batch(len(part), columns), 0
            token = page.next_page_token
            if not token:
                break
        yield encoder.end(), 0


class _Texts:
    """Names as a table of bytes, so that a column of them is gathered without a loop."""

    def __init__(self, names: Sequence[str]) -> None:
        padded = np.array([name.encode() for name in names] or [b""], np.bytes_)
        self._bytes = np.frombuffer(padded.tobytes(), np.uint8).reshape(len(padded), -1)
        self._lengths = np.char.str_len(padded).astype(np.int32)

    def column(self, numbers: NDArray[np.int32]) -> CArray:
        """utf8 (rows,): the name of each number."""
        lengths = self._lengths[numbers]
        offsets = np.zeros(len(numbers) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        padded = self._bytes[numbers]
        width = padded.shape[1]
        data = padded.reshape(-1) if (lengths == width).all() else padded[np.arange(width) < lengths[:, None]]
        return nanoarrow.c_array_from_buffers(nanoarrow.string(), len(numbers), [None, offsets, data])


def _long(encoder: _Encoder, rows: Collapsed, devices: _Texts) -> tuple[bytes, int]:
    """One row a reading, from a column a metric."""
    there = [np.flatnonzero(~np.isnan(column)) for column in rows.values]
    picked = np.concatenate(there) if there else np.empty(0, np.intp)
    metric = np.repeat(np.arange(len(there), dtype=np.int32), [len(part) for part in there])
    values = [column[part] for column, part in zip(rows.values, there, strict=True)]
    columns = [
        devices.column(rows.device[picked]),
        _Texts(rows.metrics).column(metric),
        _times(rows.time[picked]),
        _values(np.concatenate(values) if values else np.empty(0)),
    ]
    return encoder.batch(len(picked), columns), len(picked)


def _maps(labels: Sequence[Mapping[str, str]]) -> CArray:
    """map (rows,), keys rising."""
    ends = np.zeros(len(labels) + 1, np.int32)
    np.cumsum([len(one) for one in labels], out=ends[1:])
    keys = _strings([key for one in labels for key in sorted(one)])
    values = _strings([one[key] for one in labels for key in sorted(one)])
    entries = nanoarrow.c_array_from_buffers(
        nanoarrow.c_schema(_LABELS).child(0), int(ends[-1]), [None], children=[keys, values], move=True
    )
    return nanoarrow.c_array_from_buffers(_LABELS, len(labels), [None, ends], children=[entries], move=True)


def _strings(names: Sequence[str]) -> CArray:
    return _Texts(names).column(np.arange(len(names), dtype=np.int32))


def _times(times: NDArray[np.int64]) -> CArray:
    return nanoarrow.c_array_from_buffers(_TIME, len(times), [None, np.ascontiguousarray(times, "<i8")])


def _values(values: NDArray[np.float64]) -> CArray:
    return nanoarrow.c_array_from_buffers(
        nanoarrow.float64(), len(values), [None, np.ascontiguousarray(values)]
    )
