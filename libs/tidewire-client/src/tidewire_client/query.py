"""Queries: newest values, series, readings as NumPy columns, aggregates, the loss ledger.

Times are given as aware datetimes, `datetime64` or microseconds, and come back as int64 microseconds. Ranges include
their start and exclude their end.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from tidewire.storage.v1 import storage_pb2 as rpc
from tidewire.storage.v1.storage_pb2_grpc import StorageServiceStub
from tidewire.type.v1 import columns_pb2
from tidewire_client.connect import STORAGE, AsyncConnection
from tidewire_client.errors import InvalidArgument
from tidewire_client.names import device_name, last_segment, tenant_name
from tidewire_client.report import Report, join_report, report_request
from tidewire_client.status import from_rpc_error
from tidewire_client.times import Moment, timestamp_us, to_duration, to_timestamp

if TYPE_CHECKING:
    from tidewire.storage.v1.storage_pb2_grpc import StorageServiceAsyncStub

FUNCTIONS = tuple(name.lower() for name, number in rpc.AggregateFunction.items() if number)
_STREAM_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Latest:
    """Newest value of one metric of one device."""

    device: str
    metric: str
    time_unix_us: int
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one device, and the times of its oldest and newest readings."""

    device: str
    metric: str
    first_time_unix_us: int
    last_time_unix_us: int


@dataclass(frozen=True, slots=True)
class SeriesColumns:
    """Readings of one device, in the order of time.

    Attributes:
        device: device id.
        metrics: names of the columns.
        time_unix_us: int64 (rows,), strictly rising.
        values: float64 (metrics, rows); NaN: no reading in that cell.
    """

    device: str
    metrics: tuple[str, ...]
    time_unix_us: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.time_unix_us)

    def __getitem__(self, metric: str) -> NDArray[np.float64]:
        """The column of a metric. Raises KeyError when there is no reading of it, or none yet."""
        try:
            column: NDArray[np.float64] = self.values[self.metrics.index(metric)]
        except ValueError:
            raise KeyError(f"no readings of {metric} of {self.device} in this time") from None
        return column

    @property
    def times(self) -> NDArray[np.datetime64]:
        """Times as `datetime64[us]`, UTC."""
        return self.time_unix_us.view("datetime64[us]")

    @property
    def readings(self) -> int:
        """Cells that are not NaN."""
        return self.values.size - int(np.isnan(self.values).sum())


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Buckets of one metric of one device, or of several devices together (`device` is "").

    Attributes:
        group: value of the label that groups; "": of devices without it, or not grouped.
        tier: what it was read from: `raw`, `cold`, `rollup_1m`, `rollup_1h` or `rollup_1d`; "" of older servers.
        bucket_start_unix_us: int64 (buckets,), rising; only buckets that have readings.
        columns: function → float64 (buckets,).
    """

    device: str
    metric: str
    bucket_start_unix_us: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.float64]]
    group: str = ""
    tier: str = ""


def join_columns(device: str, parts: Sequence[SeriesColumns]) -> SeriesColumns:
    """Puts parts that follow one another in time together; a metric that a part lacks is NaN there."""
    metrics = tuple(dict.fromkeys(metric for part in parts for metric in part.metrics))
    rows = sum(map(len, parts))
    values = np.full((len(metrics), rows), np.nan)
    place = {metric: number for number, metric in enumerate(metrics)}
    start = 0
    for part in parts:
        stop = start + len(part)
        if part.metrics == metrics:
            values[:, start:stop] = part.values
        else:
            values[[place[metric] for metric in part.metrics], start:stop] = part.values
        start = stop
    times = np.concatenate([part.time_unix_us for part in parts]) if parts else np.empty(0, np.int64)
    return SeriesColumns(device, metrics, times, values)


def _columns(device: str, message: columns_pb2.SeriesColumns) -> SeriesColumns:
    times = np.array(message.time_unix_us, np.int64)
    values = np.array(message.values, np.float64).reshape(len(message.metrics), len(times))
    return SeriesColumns(device, tuple(message.metrics), times, values)


class AsyncQueryClient:
    """Reads what storage keeps. Raises TidewireError; see `tidewire_client.errors`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def _call[Response](
        self,
        method: Callable[["StorageServiceAsyncStub"], Callable[..., Awaitable[Response]]],
        request: Message,
        timeout_seconds: float | None = None,
    ) -> Response:
        def on(channel: grpc.aio.Channel) -> Callable[..., Awaitable[Response]]:
            return method(StorageServiceStub(channel))

        return await self.connection.call(STORAGE, on, request, timeout_seconds=timeout_seconds)

    async def _parent(self) -> str:
        return tenant_name(await self.connection.tenant())

    async def latest(
        self,
        devices: Sequence[str] = (),
        metrics: Sequence[str] = (),
        *,
        filter: str = "",  # noqa: A002 - as in the API
        limit: int | None = None,
    ) -> list[Latest]:
        """Newest values by device and metric, of some devices, of those a filter admits, or of all; at most `limit`."""
        found: list[Latest] = []
        parent, token = await self._parent(), ""
        while True:
            size = 15_000 if limit is None else min(15_000, limit - len(found))
            page = await self._call(
                lambda stub: stub.GetLatest,
                rpc.GetLatestRequest(
                    parent=parent,
                    devices=devices,
                    metrics=metrics,
                    filter=filter,
                    page_size=size,
                    page_token=token,
                ),
            )
            found.extend(
                Latest(last_segment(value.device), value.metric, value.time_unix_us, value.value)
                for value in page.values
            )
            token = page.next_page_token
            if not token or (limit is not None and len(found) >= limit):
                return found

    async def series(
        self,
        devices: Sequence[str] = (),
        *,
        filter: str = "",  # noqa: A002 - as in the API
        limit: int | None = None,
    ) -> list[Series]:
        """The (device, metric) pairs that have readings, by device and metric; at most `limit`."""
        found: list[Series] = []
        parent, token = await self._parent(), ""
        while True:
            size = 10_000 if limit is None else min(10_000, limit - len(found))
            page = await self._call(
                lambda stub: stub.ListSeries,
                rpc.ListSeriesRequest(
                    parent=parent, devices=devices, filter=filter, page_size=size, page_token=token
                ),
            )
            found.extend(
                Series(
                    last_segment(one.device),
                    one.metric,
                    timestamp_us(one.first_time),
                    timestamp_us(one.last_time),
                )
                for one in page.series
            )
            token = page.next_page_token
            if not token or (limit is not None and len(found) >= limit):
                return found

    async def iterate_series(
        self,
        device: str,
        metrics: Sequence[str] = (),
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        max_rows: int = 0,
    ) -> AsyncIterator[SeriesColumns]:
        """A device's readings in parts of at most 10,000 rows, in the order of time.

        Args:
            metrics: which; none: all.
            start: first moment, inclusive; None: the first reading.
            end: last moment, exclusive; None: the last reading.
            max_rows: most rows; 0: all.

        Raises TidewireError, also between parts.
        """
        name = device_name(await self.connection.tenant(), device)
        token, rows = "", 0
        while True:
            channel = await self.connection.channel(STORAGE)
            request = rpc.ReadSeriesRequest(
                device=name,
                metrics=metrics,
                start_time=to_timestamp(start, "start") if start is not None else None,
                end_time=to_timestamp(end, "end") if end is not None else None,
                max_rows=max(0, max_rows - rows) if max_rows else 0,
                page_token=token,
            )
            token = ""
            parts = StorageServiceStub(channel).ReadSeries(
                request, metadata=self.connection.metadata(), timeout=_STREAM_SECONDS
            )
            try:
                async for part in parts:
                    token = part.next_page_token
                    if part.columns.time_unix_us:
                        columns = _columns(last_segment(device), part.columns)
                        rows += len(columns)
                        yield columns
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(
                    error, STORAGE, ", ".join(self.connection.known_addresses(STORAGE))
                ) from error
            if not token or (max_rows and rows >= max_rows):
                return

    async def read_series(
        self,
        device: str,
        metrics: Sequence[str] = (),
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        max_rows: int = 0,
    ) -> SeriesColumns:
        """A device's readings as one table; arguments as `iterate_series`. A broken connection is taken up again."""
        parts: list[SeriesColumns] = []
        first = start

        async def gather() -> None:
            nonlocal first
            rows = sum(map(len, parts))
            async for part in self.iterate_series(
                device, metrics, start=first, end=end, max_rows=max_rows - rows if max_rows else 0
            ):
                parts.append(part)
                first = int(part.time_unix_us[-1]) + 1

        await self.connection.retrying(STORAGE, gather)
        return join_columns(last_segment(device), parts)

    async def aggregate(
        self,
        devices: str | Sequence[str],
        metrics: str | Sequence[str],
        functions: str | Sequence[str] = "avg",
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        every: timedelta | float | None = None,
        across_devices: bool = False,
        filter: str = "",  # noqa: A002 - as in the API
        group_by_label: str = "",
    ) -> list[Aggregate]:
        """Aggregates readings in buckets of time.

        Args:
            devices: device ids, at most 10,000; none: those that `filter` admits, or all.
            metrics: metric names.
            functions: of `count min max avg sum first last stddev p50 p95 p99`.
            start: first moment, inclusive; None: the first reading.
            end: last moment, exclusive; None: the last reading.
            every: width of a bucket, at least a second; None: one bucket over the whole time.
            across_devices: one result for all devices together.
            filter: as in listing devices, such as `type = pump AND labels.site = north`.
            group_by_label: key of a label; one result for all devices of one value of it.
        """
        asked = [functions] if isinstance(functions, str) else list(functions)
        unknown = [name for name in asked if name.lower() not in FUNCTIONS]
        if unknown:
            raise InvalidArgument(
                f"there is no function '{unknown[0]}'; functions are {', '.join(FUNCTIONS)}",
                field="functions",
            )
        request = rpc.AggregateRequest(
            parent=await self._parent(),
            devices=[devices] if isinstance(devices, str) else devices,
            metrics=[metrics] if isinstance(metrics, str) else metrics,
            functions=[rpc.AggregateFunction.Value(name.upper()) for name in asked],
            start_time=to_timestamp(start, "start") if start is not None else None,
            end_time=to_timestamp(end, "end") if end is not None else None,
            bucket_duration=to_duration(every, "every") if every is not None else None,
            across_devices=across_devices,
            filter=filter,
            group_by_label=group_by_label,
        )
        answer = await self._call(lambda stub: stub.Aggregate, request, _STREAM_SECONDS)
        return [
            Aggregate(
                last_segment(one.device),
                one.metric,
                np.array(one.bucket_start_unix_us, np.int64),
                {
                    rpc.AggregateFunction.Name(column.function).lower(): np.array(column.values, np.float64)
                    for column in one.columns
                },
                one.group,
                rpc.AggregateTier.Name(answer.tier).lower() if answer.tier else "",
            )
            for one in answer.series
        ]

    async def iterate_sql(
        self, statement: str, *, timeout_seconds: float = _STREAM_SECONDS
    ) -> AsyncGenerator[bytes]:
        """Runs one SELECT over the tenant's readings; yields one Arrow IPC stream in parts of at most 1 MiB.

        Leaving the iteration ends the statement. Raises TidewireError, also between parts; nothing is repeated.
        """
        request = rpc.RunSqlRequest(parent=await self._parent(), statement=statement)
        channel = await self.connection.channel(STORAGE)
        parts = StorageServiceStub(channel).RunSql(
            request, metadata=self.connection.metadata(), timeout=timeout_seconds
        )
        try:
            async for part in parts:
                yield part.arrow_ipc
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(
                error, STORAGE, ", ".join(self.connection.known_addresses(STORAGE))
            ) from error
        finally:
            parts.cancel()

    async def sql(self, statement: str, *, timeout_seconds: float = _STREAM_SECONDS) -> bytes:
        """Runs one SELECT (DuckDB's dialect) over the tables `readings`, `devices` and `series` of the tenant.

        Returns an Arrow IPC stream: `pyarrow.ipc.open_stream(answer).read_all()` is a table, and
        `polars.read_ipc_stream(answer)` a data frame.
        """
        return b"".join([part async for part in self.iterate_sql(statement, timeout_seconds=timeout_seconds)])

    async def report(
        self,
        *,
        month: date | None = None,
        start: date | None = None,
        end: date | None = None,
        devices: Sequence[str] = (),
        filter: str = "",  # noqa: A002 - as in the API
        metrics: Sequence[str] = (),
        granularity: str = "month",
        group_by_label: str = "",
        on_progress: Callable[[float], None] | None = None,
    ) -> Report:
        """Usage and key figures of whole days or months (UTC), by device or by the value of a label.

        Args:
            month: any day of the month that is asked for.
            start: first day; with `end`, instead of a month. At most 366 days.
            end: first day that is left out.
            devices: device ids, at most 10,000; none: those that `filter` admits, or all.
            filter: as in listing devices, such as `type = pump AND labels.site = north`.
            metrics: metric names; none: all.
            granularity: length of a period: `month` or `day`.
            group_by_label: key of a label; one row for all devices of one value of it.
            on_progress: is told the share of the work that is done, 0 to 1, as it rises.
        """
        request = report_request(await self._parent(), month, start, end, granularity)
        request.devices.extend(devices)
        request.filter = filter
        request.metrics.extend(metrics)
        request.group_by_label = group_by_label
        parts: list[rpc.ReportResponse] = []
        channel = await self.connection.channel(STORAGE)
        stream = StorageServiceStub(channel).Report(
            request, metadata=self.connection.metadata(), timeout=_STREAM_SECONDS
        )
        try:
            async for part in stream:
                parts.append(part)
                if on_progress is not None:
                    on_progress(part.progress)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(
                error, STORAGE, ", ".join(self.connection.known_addresses(STORAGE))
            ) from error
        finally:
            stream.cancel()
        return join_report(parts)

    async def ledger(
        self, *, tenant: str = "", start: Moment | None = None, end: Moment | None = None
    ) -> rpc.GetLedgerResponse:
        """The loss ledger by hour; tenant "": every tenant, for platform administrators."""
        request = rpc.GetLedgerRequest(
            tenant=tenant_name(tenant) if tenant else "",
            start_time=to_timestamp(start, "start") if start is not None else None,
            end_time=to_timestamp(end, "end") if end is not None else None,
        )
        return await self._call(lambda stub: stub.GetLedger, request)

    async def storage_usage(self, *, tenant: str = "") -> list[rpc.StorageUsage]:
        """What a tenant keeps in storage; "": every tenant, for platform administrators."""
        request = rpc.GetStorageUsageRequest(tenant=tenant_name(tenant) if tenant else "")
        return list((await self._call(lambda stub: stub.GetStorageUsage, request)).usages)

    async def seal_epochs(self) -> int:
        """Ends the epoch of every partition. Platform administrators only. Returns how many partitions got a cut."""
        return (await self._call(lambda stub: stub.SealEpochs, rpc.SealEpochsRequest())).partitions
