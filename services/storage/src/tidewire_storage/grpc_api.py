"""The gRPC front end: parse, call the use case, render. Knows nothing of blocks or the catalog."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from tidewire.storage.v1 import storage_pb2 as pb
from tidewire_kit.directory import Directory
from tidewire_kit.errors import NotFound, PermissionDenied
from tidewire_kit.grpc import Call
from tidewire_kit.ids import TenantId, parse_device_name, parse_tenant_name
from tidewire_storage import conversions as convert
from tidewire_storage.access import PLATFORM_WIDE
from tidewire_storage.application.accounts import Accounts
from tidewire_storage.application.aggregate import Aggregate
from tidewire_storage.application.latest import SeriesDirectory
from tidewire_storage.application.list_events import ListEvents
from tidewire_storage.application.names import Names
from tidewire_storage.application.read_series import ReadSeries
from tidewire_storage.application.report import Report
from tidewire_storage.application.run_sql import RunSql
from tidewire_storage.application.sweep import MAX_US
from tidewire_storage.latest_wire import page_to_latest
from tidewire_storage.report_wire import report_asked, report_part_encoded
from tidewire_storage.wire import EncodedResponse

_LATEST_DEFAULT, _LATEST_MOST = 1_000, 15_000
_SERIES_DEFAULT, _SERIES_MOST = 1_000, 10_000
_EVENTS_DEFAULT, _EVENTS_MOST = 100, 1_000


class StorageServicer:
    """Implements tidewire.storage.v1.StorageService."""

    def __init__(
        self,
        directory: Directory,
        names: Names,
        series: SeriesDirectory,
        read_series: ReadSeries,
        aggregate: Aggregate,
        accounts: Accounts,
        run_sql: RunSql,
        events: ListEvents,
        report: Report,
    ) -> None:
        self._directory = directory
        self._names = names
        self._series = series
        self._read_series = read_series
        self._aggregate = aggregate
        self._accounts = accounts
        self._run_sql = run_sql
        self._events = events
        self._report = report

    async def GetLatest(
        self, request: pb.GetLatestRequest, call: Call
    ) -> EncodedResponse | pb.GetLatestResponse:
        """Newest value of each metric."""
        tenant = _tenant(request.parent, call)
        page = await self._series.page(
            tenant,
            convert.device_ids(request.devices),
            convert.metric_names(request.metrics),
            convert.page_size(request.page_size, _LATEST_DEFAULT, _LATEST_MOST),
            request.page_token,
            request.filter,
        )
        return page_to_latest(page)

    async def ListSeries(self, request: pb.ListSeriesRequest, call: Call) -> pb.ListSeriesResponse:
        """The (device, metric) pairs that have readings."""
        tenant = _tenant(request.parent, call)
        page = await self._series.page(
            tenant,
            convert.device_ids(request.devices),
            [],
            convert.page_size(request.page_size, _SERIES_DEFAULT, _SERIES_MOST),
            request.page_token,
            request.filter,
        )
        return convert.page_to_series(page)

    async def ReadSeries(self, request: pb.ReadSeriesRequest, call: Call) -> AsyncIterator[EncodedResponse]:
        """One device's readings."""
        tenant = call.tenant_for(request.device)
        _, device_id = parse_device_name(request.device, field="device")
        start, end = convert.span_us(request)
        metrics = convert.metric_names(request.metrics)
        rows = convert.row_limit(request.max_rows)
        async for part in self._read_series.read(
            tenant, device_id, metrics, start, end, rows, request.page_token
        ):
            yield convert.part_encoded(request.device, part)

    async def Aggregate(self, request: pb.AggregateRequest, call: Call) -> pb.AggregateResponse:
        """Buckets."""
        tenant = _tenant(request.parent, call)
        asked = convert.question(request)
        answer = await self._aggregate.run(tenant, convert.device_ids(request.devices), asked, request.filter)
        return convert.aggregated_to_message(answer, asked.functions)

    async def RunSql(self, request: pb.RunSqlRequest, call: Call) -> None:
        """A statement. Written from here, so that a caller who goes away ends it at once."""
        tenant = _tenant(request.parent, call)
        async with aclosing(self._run_sql.run(tenant, request.statement)) as parts:
            async for part in parts:
                call.check()
                await call.context.write(pb.RunSqlResponse(arrow_ipc=part).SerializeToString())

    async def Report(self, request: pb.ReportRequest, call: Call) -> None:
        """A report. Written from here, so that a caller who goes away ends it at once."""
        tenant = _tenant(request.parent, call)
        async with aclosing(self._report.run(tenant, report_asked(request))) as parts:
            async for part in parts:
                call.check()
                await call.context.write(report_part_encoded(part))

    async def ListEvents(self, request: pb.ListEventsRequest, call: Call) -> pb.ListEventsResponse:
        """Events, newest first."""
        tenant = _tenant(request.parent, call)
        start, end = convert.span_us(request)
        page = await self._events.page(
            tenant,
            convert.device_ids(request.devices),
            convert.event_type(request.type),
            convert.severity(request.min_severity),
            start,
            end,
            convert.page_size(request.page_size, _EVENTS_DEFAULT, _EVENTS_MOST),
            request.page_token,
        )
        return pb.ListEventsResponse(
            events=[convert.event_to_message(*item) for item in page.events],
            next_page_token=page.next_page_token,
        )

    async def GetLedger(self, request: pb.GetLedgerRequest, call: Call) -> pb.GetLedgerResponse:
        """The loss ledger."""
        tenant = self._any_tenant(request.tenant, call)
        start, end = convert.span_us(request)
        answer = await self._accounts.ledger(tenant, start or 0, MAX_US if end is None else end)
        return convert.ledger_to_message(answer, self._names)

    async def GetStorageUsage(
        self, request: pb.GetStorageUsageRequest, call: Call
    ) -> pb.GetStorageUsageResponse:
        """What tenants keep."""
        usages = await self._accounts.usage(self._any_tenant(request.tenant, call))
        return pb.GetStorageUsageResponse(usages=[convert.usage_to_message(usage) for usage in usages])

    async def SealEpochs(self, request: pb.SealEpochsRequest, call: Call) -> pb.SealEpochsResponse:
        """Ends every partition's epoch."""
        remaining = call.time_remaining()
        partitions = await self._accounts.seal_epochs(MAX_US if remaining is None else remaining * 0.9)
        return pb.SealEpochsResponse(partitions=partitions)

    def _any_tenant(self, name: str, call: Call) -> TenantId | None:
        """The tenant of a name; None for all, which only the platform's own may ask for."""
        if not call.caller.roles & PLATFORM_WIDE:
            if not name:
                raise PermissionDenied(
                    "all tenants are for platform-admin; name your own tenant", reason="ROLE"
                )
            return call.tenant_for(name)
        if not name:
            return None
        view = self._directory.tenant_by_name(parse_tenant_name(name, field="tenant"))
        if view is None:
            raise NotFound(name)
        return view.uid


def _tenant(name: str, call: Call) -> TenantId:
    tenant = call.tenant_for(name)
    parse_tenant_name(name, field="parent")
    return tenant
