"""Settings of ingestion; each has a variable TIDEWIRE_INGESTION_<NAME>."""

from dataclasses import dataclass
from typing import ClassVar

from tidewire_kit.settings import setting


@dataclass(frozen=True, slots=True)
class Settings:
    """What only ingestion reads."""

    PREFIX: ClassVar[str] = "TIDEWIRE_INGESTION_"

    port: int = setting(7002, minimum=0, maximum=65535)
    """Port of the gRPC API. 0: a free one."""

    metrics_port: int = setting(7102, minimum=0, maximum=65535)
    """Port of /metrics, /readyz, /livez and /startupz. 0: a free one."""

    pending_bytes: int = setting(64 << 20, minimum=1 << 20, maximum=1 << 34)
    """Most bytes admitted and not yet durable; above it batches are refused (OVERLOADED). 64 MiB is some
    tenths of a second of the highest rate, so it fills only when the disk stalls. One tenant may hold half of it."""

    gather_seconds: float = setting(0.002, minimum=0.0, maximum=1.0)
    """Longest time that a batch waits for the commit before its own, in seconds. Longer: fewer and larger records."""

    calm_gather_seconds: float = setting(0.0025, minimum=0.0, maximum=1.0)
    """Most time between two commits while the processor has time to spare, in seconds; none when few requests come.
    Longer: more requests share a commit, each is answered later."""

    busy_gather_seconds: float = setting(0.012, minimum=0.0, maximum=1.0)
    """The same while the processor is the limit, and requests queue for it anyway."""

    stream_window: int = setting(16, minimum=1, maximum=1024)
    """Batches of one stream that may wait for durability at once; enough to keep the disk busy with one stream."""

    resolve_seconds: float = setting(2.0, minimum=0.1, maximum=30.0)
    """Longest time to wait for the registry's answer about an unknown device, in seconds."""
