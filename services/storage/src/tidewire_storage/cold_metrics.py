"""Instruments of the cold tier; made by `StorageMetrics`, called by what they observe."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from tidewire_storage.application.cold import ColdReport
from tidewire_storage.application.cold_upkeep import ColdAudit


class ColdMetrics:
    """What an audit found, what rounds did, and when the last one ended well."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._readings = Counter(
            "tidewire_storage_cold_written_readings",
            "Readings written in objects of the cold tier, by why: moved, folded or purged.",
            ["why"],
            registry=registry,
        )
        self._written = Counter(
            "tidewire_storage_cold_written_bytes", "Bytes of objects written.", ["why"], registry=registry
        )
        self._failures = Counter(
            "tidewire_storage_cold_failures", "Rounds of the cold tier that failed.", registry=registry
        )
        self._last = Gauge(
            "tidewire_storage_cold_last_round_timestamp_seconds",
            "When a round of moving and folding last ended well; 0: none did since the start.",
            registry=registry,
        )
        self._objects = Gauge(
            "tidewire_storage_cold_objects", "Objects of this process's partitions.", registry=registry
        )
        self._bytes = Gauge("tidewire_storage_cold_bytes", "Their bytes.", registry=registry)
        self._held = Gauge("tidewire_storage_cold_readings", "Their readings.", registry=registry)
        self._missing = Gauge(
            "tidewire_storage_cold_missing_objects",
            "Objects that have to be there and are not. Not 0: restore them.",
            registry=registry,
        )

    def rewritten(self, report: ColdReport) -> None:
        """Objects were written."""
        self._readings.labels(report.why).inc(report.readings)
        self._written.labels(report.why).inc(report.bytes)

    def round_ended(self, at_us: int) -> None:
        """A round has ended well."""
        self._last.set(at_us / 1e6)

    def failed(self) -> None:
        """A round has failed."""
        self._failures.inc()

    def audited(self, found: ColdAudit) -> None:
        """Objects were compared with what is known of them."""
        self._objects.set(found.objects)
        self._bytes.set(found.bytes)
        self._held.set(found.readings)
        self._missing.set(found.missing)
