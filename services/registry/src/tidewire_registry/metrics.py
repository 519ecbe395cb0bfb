"""Every instrument of the registry, declared once. RPC metrics come from the kit."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class RegistryMetrics:
    """Made by main on the process's collector registry; handed to whoever counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.published = Counter(
            "tidewire_registry_published_changes", "Changes put on the registry topic.", registry=registry
        )
        self.republished = Counter(
            "tidewire_registry_republished_changes",
            "Changes found unpublished by the sweeper: at start, or because publishing had failed.",
            registry=registry,
        )
        self.publish_failures = Counter(
            "tidewire_registry_publish_failures", "Puts on the registry topic that failed.", registry=registry
        )
        self.heartbeat = Gauge(
            "tidewire_registry_heartbeat_timestamp_seconds",
            "Unix time of the last heartbeat that is on the registry topic.",
            registry=registry,
        )
