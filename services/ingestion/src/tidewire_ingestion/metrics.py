"""Every instrument of ingestion, declared once. Tenants are labels up to a bound, devices never."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tidewire_ingestion.domain import Reason
from tidewire_kit.clock import Clock
from tidewire_kit.errors import TidewireError
from tidewire_kit.ids import TenantId
from tidewire_kit.observability.metrics import LATENCY_BUCKETS_SECONDS

MAX_TENANTS = 1_000
"""Tenants with a label of their own; the rest is counted under `other`."""
OTHER = "other"
FAULT_SECONDS = 10.0


class _TenantCounters:
    """The counters of one tenant, looked up once."""

    __slots__ = ("accepted", "batches", "failed", "missed", "refused")

    def __init__(self, metrics: "IngestionMetrics", tenant: str) -> None:
        self.accepted = metrics.accepted.labels(tenant)
        self.batches = metrics.batches.labels(tenant)
        self.missed = metrics.missed_batches.labels(tenant)
        self.refused: dict[Reason, Counter] = {}
        self.failed: dict[str, Counter] = {}


class IngestionMetrics:
    """Counts for operators: observer of the use case and of the producer."""

    def __init__(
        self, registry: CollectorRegistry, clock: Clock, tenant_name: Callable[[TenantId], str]
    ) -> None:
        """`tenant_name` returns the id under which people know a tenant, "" if it has none."""
        self._tenant_name = tenant_name
        self._tenants: dict[TenantId, _TenantCounters] = {}
        self._other: _TenantCounters | None = None
        self.accepted = Counter(
            "tidewire_ingestion_accepted_readings",
            "Readings acknowledged as durable.",
            ("tenant",),
            registry=registry,
        )
        self.batches = Counter(
            "tidewire_ingestion_batches",
            "Batches answered with an outcome, all rows refused included.",
            ("tenant",),
            registry=registry,
        )
        self.accepted_events = Counter(
            "tidewire_ingestion_accepted_events",
            "Events acknowledged as durable.",
            ("tenant",),
            registry=registry,
        )
        self.refused_events = Counter(
            "tidewire_ingestion_refused_events",
            "Events refused, by reason.",
            ("tenant", "reason"),
            registry=registry,
        )
        self.refused_readings = Counter(
            "tidewire_ingestion_refused_readings",
            "Readings in refused rows, by reason.",
            ("tenant", "reason"),
            registry=registry,
        )
        self.failed_batches = Counter(
            "tidewire_ingestion_failed_batches",
            "Batches that failed as a whole, by the error's reason.",
            ("tenant", "reason"),
            registry=registry,
        )
        self.missed_batches = Counter(
            "tidewire_ingestion_missed_batches",
            "Batches missing by their publishers' own count.",
            ("tenant",),
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "tidewire_ingestion_commit_duration_seconds",
            "Time from giving gathered records to the log until they are durable.",
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=registry,
        )
        self.commit_requests = Histogram(
            "tidewire_ingestion_commit_requests",
            "Requests that shared a commit.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=registry,
        )
        self.records = Counter(
            "tidewire_ingestion_records", "Records written to the telemetry topic.", registry=registry
        )
        self.record_bytes = Counter(
            "tidewire_ingestion_record_bytes",
            "Bytes of records written to the telemetry topic.",
            registry=registry,
        )
        self.failed_commits = Counter(
            "tidewire_ingestion_failed_commits",
            "Commits that failed, by the error's reason.",
            ("reason",),
            registry=registry,
        )
        self.quota_share = Gauge(
            "tidewire_ingestion_quota_share_ratio",
            "This process's part of a tenant's quota; 1: all of it.",
            ("tenant", "quota"),
            registry=registry,
        )
        self._pending_bytes = Gauge(
            "tidewire_ingestion_pending_bytes", "Bytes admitted and not yet durable.", registry=registry
        )
        self._clock = clock
        self._last_failure: tuple[float, Exception] | None = None

    def commit_fault(self) -> str | None:
        """Why the last commit failed, if that was in the last `FAULT_SECONDS`: without traffic it is not known."""
        if self._last_failure is None:
            return None
        at, error = self._last_failure
        return f"the last commit failed: {error}" if self._clock.monotonic() - at < FAULT_SECONDS else None

    def watch_pending(self, pending_bytes: Callable[[], float]) -> None:
        """Reads the gauge of pending bytes from `pending_bytes` whenever somebody looks."""
        self._pending_bytes.set_function(pending_bytes)

    # Observer of the use case

    def answered(self, tenant: TenantId, batches: int, accepted_readings: int) -> None:
        """Batches were answered."""
        counters = self._of(tenant)
        counters.batches.inc(batches)
        if accepted_readings:
            counters.accepted.inc(accepted_readings)

    def refused(self, tenant: TenantId, reason: Reason, readings: int) -> None:
        """Rows of that many readings were refused."""
        counters = self._of(tenant)
        child = counters.refused.get(reason)
        if child is None:
            label = self._label(tenant)
            child = counters.refused[reason] = self.refused_readings.labels(label, reason.name)
        child.inc(readings)

    def failed(self, tenant: TenantId, reason: str) -> None:
        """A batch failed as a whole."""
        counters = self._of(tenant)
        child = counters.failed.get(reason)
        if child is None:
            child = counters.failed[reason] = self.failed_batches.labels(self._label(tenant), reason)
        child.inc()

    def missed(self, tenant: TenantId, batches: int) -> None:
        """Batches are missing."""
        self._of(tenant).missed.inc(batches)

    def events_answered(self, tenant: TenantId, accepted: int) -> None:
        """A batch of events was answered."""
        self._of(tenant).batches.inc()
        self.accepted_events.labels(self._label(tenant)).inc(accepted)

    def events_refused(self, tenant: TenantId, reason: Reason, events: int) -> None:
        """So many events were refused."""
        self.refused_events.labels(self._label(tenant), reason.name).inc(events)

    def quota_shares(self, tenant: TenantId, readings: float, batches: float) -> None:
        """These parts of the tenant's quotas hold in this process."""
        label = self._label(tenant)
        if label != OTHER:  # of many tenants together a part says nothing
            self.quota_share.labels(label, "readings_per_second").set(readings)
            self.quota_share.labels(label, "batches_per_second").set(batches)

    # Observer of the producer

    def committed(self, seconds: float, requests: int, records: int, value_bytes: int) -> None:
        """A commit became durable."""
        self._last_failure = None
        self.commit_seconds.observe(seconds)
        self.commit_requests.observe(requests)
        self.records.inc(records)
        self.record_bytes.inc(value_bytes)

    def commit_failed(self, error: Exception, requests: int) -> None:
        """A commit failed with all its requests."""
        self._last_failure = (self._clock.monotonic(), error)
        self.failed_commits.labels(error.reason if isinstance(error, TidewireError) else "INTERNAL").inc()

    def _of(self, tenant: TenantId) -> _TenantCounters:
        counters = self._tenants.get(tenant)
        if counters is None:
            label = self._label(tenant)
            if label == OTHER:
                if self._other is None:
                    self._other = _TenantCounters(self, OTHER)
                return self._other
            counters = self._tenants[tenant] = _TenantCounters(self, label)
        return counters

    def _label(self, tenant: TenantId) -> str:
        if tenant not in self._tenants and len(self._tenants) >= MAX_TENANTS:
            return OTHER
        return self._tenant_name(tenant) or OTHER
