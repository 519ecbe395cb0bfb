"""Every instrument of the storage service, declared once."""

from collections.abc import Iterable, Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tidewire_kit.clock import Clock
from tidewire_kit.directory import Directory
from tidewire_kit.ids import uid_hex
from tidewire_kit.owner import OwnerStats
from tidewire_storage.application.ingest import FlushReport
from tidewire_storage.application.merge import MergeReport
from tidewire_storage.application.seal import SealReport
from tidewire_storage.cold_metrics import ColdMetrics
from tidewire_storage.ports import EventAccount

VISIBLE_BUCKETS_SECONDS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0)
_TENANTS = 200
"""Tenants with a series of their own; further ones are counted together as `other`."""


class ColumnHistogram(Collector):
    """A histogram that takes whole columns: one observation per segment would cost more than storing it."""

    def __init__(self, name: str, text: str, buckets: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._bounds = np.array(buckets)
        self._counts = np.zeros(len(buckets) + 1, np.int64)
        self._sum = 0.0
        self._lock = Lock()

    def observe(self, seconds: NDArray[np.float64], weights: NDArray[np.uint32]) -> None:
        """Observes each of `seconds` (n,) `weights` (n,) times."""
        places = np.searchsorted(self._bounds, seconds)
        counts = np.bincount(places, weights, minlength=len(self._counts)).astype(np.int64)
        with self._lock:
            self._counts += counts
            self._sum += float((seconds * weights).sum())

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client."""
        with self._lock:
            cumulative = np.cumsum(self._counts).tolist()
            total = self._sum
        bounds = [str(bound) for bound in self._bounds.tolist()] + ["+Inf"]
        family = HistogramMetricFamily(self._name, self._text)
        family.add_metric([], list(zip(bounds, cumulative, strict=True)), total)
        return [family]


class _OwnerCollector(Collector):
    """The partition owner's counts, read when they are asked for."""

    def __init__(self, stats: OwnerStats) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client."""
        stats = self._stats
        yield CounterMetricFamily("tidewire_storage_records", "Records read from the log.", stats.records)
        yield CounterMetricFamily(
            "tidewire_storage_duplicate_segments",
            "Segments recognised as sent again.",
            stats.duplicate_segments,
        )
        yield CounterMetricFamily("tidewire_storage_dead_letters", "Records set aside.", stats.dead_letters)
        yield CounterMetricFamily(
            "tidewire_storage_missing_records",
            "Records that the log no longer had when they were to be stored, after stores were restored. Not 0: lost.",
            stats.missing_records,
        )
        yield CounterMetricFamily(
            "tidewire_storage_consumer_failures", "Failures of the consumer's loop.", stats.failures
        )


class StorageMetrics:
    """The instruments; methods are called by what they observe."""

    def __init__(self, registry: CollectorRegistry, clock: Clock, directory: Directory) -> None:
        self._clock = clock
        self._directory = directory
        self._tenants: dict[bytes, Counter] = {}
        self.cold = ColdMetrics(registry)
        self._stored = Counter(
            "tidewire_storage_stored_readings", "Readings written in blocks.", ["tenant"], registry=registry
        )
        self._duplicate = Counter(
            "tidewire_storage_duplicate_readings",
            "Readings recognised as sent again within the deduplication window.",
            registry=registry,
        )
        self._blocks = Counter("tidewire_storage_blocks", "Blocks written.", registry=registry)
        self._bytes = Counter("tidewire_storage_block_bytes", "Bytes of blocks written.", registry=registry)
        self._sealed = Counter(
            "tidewire_storage_sealed_readings", "Readings written in sealed blocks.", registry=registry
        )
        self._sealed_bytes = Counter(
            "tidewire_storage_sealed_bytes", "Bytes of sealed blocks written.", registry=registry
        )
        self._merged = Counter(
            "tidewire_storage_merged_readings",
            "Readings of sealed epochs that were merged.",
            registry=registry,
        )
        self._rollup_rows = Counter(
            "tidewire_storage_rollup_rows", "Rows of rollups written.", registry=registry
        )
        self._flush = Histogram(
            "tidewire_storage_flush_seconds",
            "Time from the beginning of a flush until it is durable.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0),
            registry=registry,
        )
        self._visible = ColumnHistogram(
            "tidewire_storage_visible_seconds",
            "Time from the reception of a batch until its readings are visible to queries, by readings.",
            VISIBLE_BUCKETS_SECONDS,
        )
        registry.register(self._visible)
        self._difference = Gauge(
            "tidewire_ledger_difference_readings",
            "Readings accepted that are neither stored, duplicate, dead-lettered nor purged. Not 0: readings are lost.",
            registry=registry,
        )
        self._removed = Counter(
            "tidewire_storage_removed_readings", "Readings removed, by reason.", ["reason"], registry=registry
        )
        self._statements = Counter(
            "tidewire_storage_sql_statements",
            "Statements of RunSql, by outcome: ok, cancelled, or the reason of the error.",
            ["outcome"],
            registry=registry,
        )
        self._statement_seconds = Histogram(
            "tidewire_storage_sql_seconds",
            "Time that a statement took, with the start of its process and the delivery of its result.",
            buckets=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
            registry=registry,
        )
        self._scanned = Counter(
            "tidewire_storage_sql_scanned_readings", "Readings that statements scanned.", registry=registry
        )
        self._reports = Counter(
            "tidewire_storage_reports",
            "Reports, by outcome: ok, cancelled, or the reason of the error.",
            ["outcome"],
            registry=registry,
        )
        self._report_seconds = Histogram(
            "tidewire_storage_report_seconds",
            "Time that a report took, with the delivery of its rows.",
            buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
            registry=registry,
        )
        self._report_rows = Counter(
            "tidewire_storage_report_rows", "Rows of reports that were delivered.", registry=registry
        )

        self._events = Counter(
            "tidewire_storage_events",
            "Events read from the log, by outcome: stored, duplicate, dead_lettered, dropped (deleted by then).",
            ["outcome"],
            registry=registry,
        )
        self._event_difference = Gauge(
            "tidewire_ledger_difference_events",
            "Events accepted that are neither stored, duplicate, dead-lettered nor deleted. Not 0: events are lost.",
            registry=registry,
        )
        self._removed_events = Counter(
            "tidewire_storage_removed_events", "Events removed, by reason.", ["reason"], registry=registry
        )

    def statement_ended(self, outcome: str, seconds: float, scanned_readings: int) -> None:
        """A statement of RunSql has ended: `ok`, `cancelled`, or the reason of its error."""
        self._statements.labels(outcome).inc()
        self._statement_seconds.observe(seconds)
        self._scanned.inc(scanned_readings)

    def report_ended(self, outcome: str, seconds: float, rows: int) -> None:
        """A report has ended: `ok`, `cancelled`, or the reason of its error."""
        self._reports.labels(outcome).inc()
        self._report_seconds.observe(seconds)
        self._report_rows.inc(rows)

    def watch_owner(self, stats: OwnerStats, registry: CollectorRegistry) -> None:
        """Shows the partition owner's counts."""
        registry.register(_OwnerCollector(stats))

    def flushed(self, report: FlushReport) -> None:
        """A flush is durable."""
        encoded = report.encoded
        self._flush.observe(report.seconds)
        self._blocks.inc(len(encoded.blocks))
        self._bytes.inc(sum(len(block.data) for block in encoded.blocks))
        for (tenant, _), counts in encoded.ledger.items():
            self._stored_of(tenant).inc(counts.stored)
            self._duplicate.inc(counts.duplicate)
        if encoded.received_us:
            age = (self._clock.now_us() - np.concatenate(encoded.received_us)) / 1e6
            self._visible.observe(age, np.concatenate(encoded.received_readings))

    def sealed(self, report: SealReport) -> None:
        """An epoch was sealed."""
        self._sealed.inc(report.readings)
        self._sealed_bytes.inc(report.sealed_bytes)

    def merged(self, report: MergeReport) -> None:
        """Sealed epochs were merged."""
        self._merged.inc(report.readings)
        self._rollup_rows.inc(report.rollup_rows)

    def recounted(self, difference: int) -> None:
        """The ledger was counted again."""
        self._difference.set(difference)

    def removed(self, reason: str, readings: int) -> None:
        """Readings were removed."""
        self._removed.labels(reason).inc(readings)

    def events_stored(self, account: EventAccount) -> None:
        """Events became durable."""
        for outcome in ("stored", "duplicate", "dead_lettered", "dropped"):
            self._events.labels(outcome).inc(getattr(account, outcome))

    def events_recounted(self, account: EventAccount) -> None:
        """Events were counted again."""
        self._event_difference.set(account.difference)

    def events_removed(self, reason: str, events: int) -> None:
        """Events were removed."""
        self._removed_events.labels(reason).inc(events)

    def _stored_of(self, tenant: bytes) -> Counter:
        child = self._tenants.get(tenant)
        if child is None:
            view = self._directory.tenant(tenant)  # type: ignore[arg-type] # uids are tenants' here
            label = view.id if view is not None and view.id else uid_hex(tenant)
            if len(self._tenants) >= _TENANTS:
                label = "other"
            child = self._tenants[tenant] = self._stored.labels(label)
        return child
