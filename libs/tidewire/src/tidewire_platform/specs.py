"""Which processes make up a platform on this machine, and what each is told; `up` and `demo` fill in the options.

Everything a service is told goes through its environment, as `TIDEWIRE_*` settings. Secrets go by file in the data
directory, so that neither `ps` nor an environment dump shows them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Service = Literal["registry", "ingestion", "storage"]

SERVICES: tuple[Service, ...] = ("registry", "ingestion", "storage")

DEFAULT_PORTS: Mapping[Service, tuple[int, int]] = {
    "registry": (7001, 7101),
    "ingestion": (7002, 7102),
    "storage": (7003, 7103),
}
"""Service → (gRPC port, metrics port) of its first process; further ones take free ports."""

STOP_ORDER: tuple[Service, ...] = ("ingestion", "storage", "registry")
"""Nothing comes in any more, then what came in is written, then the one that the others ask goes."""

_CLIENT_VARIABLES = ("TIDEWIRE_ENDPOINT", "TIDEWIRE_TOKEN", "TIDEWIRE_TENANT")


@dataclass(frozen=True, slots=True)
class PlatformOptions:
    """What the user may choose about a platform on this machine. Port 0 takes a free one."""

    data_dir: Path
    host: str = "127.0.0.1"
    ports: Mapping[Service, tuple[int | None, int | None]] = field(default_factory=dict)
    """Service → (gRPC port, metrics port) of its first process, where the user has named them."""
    ingestion_processes: int = 1
    storage_processes: int = 1
    registry_processes: int = 1
    """More than one only on the distributed backend."""
    free_ports: bool = False
    health_port: int | None = None
    """Of one page of health for all services; None: there is none."""

    def ports_of(self, service: Service) -> tuple[int, int]:
        """(gRPC port, metrics port) of the first process of `service`: as named, or free ones, or the usual ones."""
        port, metrics_port = self.ports.get(service, (None, None))
        usual = (0, 0) if self.free_ports else DEFAULT_PORTS[service]
        return (usual[0] if port is None else port, usual[1] if metrics_port is None else metrics_port)

    def processes(self, service: Service) -> int:
        """How many processes of `service` to run."""
        counts: Mapping[Service, int] = {
            "registry": self.registry_processes,
            "ingestion": self.ingestion_processes,
            "storage": self.storage_processes,
        }
        return counts[service]


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process to run. `name` is unique, shown in logs and names its log file."""

    name: str
    service: Service
    host: str
    port: int
    metrics_port: int

    @property
    def module(self) -> str:
        """The module that `python -m` runs."""
        return f"tidewire_{self.service}"


def process_specs(options: PlatformOptions) -> list[ProcessSpec]:
    """The processes of a platform, in the order in which they are started."""
    specs = []
    for service in SERVICES:
        count = options.processes(service)
        for number in range(1, count + 1):
            name = service if count == 1 else f"{service}-{number}"
            port, metrics_port = options.ports_of(service) if number == 1 else (0, 0)
            specs.append(ProcessSpec(name, service, options.host, port, metrics_port))
    return specs


def process_environment(spec: ProcessSpec, data_dir: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process: the caller's own, less what is meant for clients, plus what `spec` says."""
    prefix = f"TIDEWIRE_{spec.service.upper()}_"
    result = {name: value for name, value in environ.items() if name not in _CLIENT_VARIABLES}
    result |= {
        "TIDEWIRE_DATA_DIR": str(data_dir),
        "TIDEWIRE_HOST": spec.host,
        "TIDEWIRE_LOG_FORMAT": "json",
        f"{prefix}PORT": str(spec.port),
        f"{prefix}METRICS_PORT": str(spec.metrics_port),
        "PYTHONUNBUFFERED": "1",
    }
    # One event loop a process: idle helper threads and per-thread heaps would only cost memory.
    result.setdefault("OPENBLAS_NUM_THREADS", "1")
    result.setdefault("MALLOC_ARENA_MAX", "2")
    if spec.service == "storage":
        # Columns of some megabytes come and go: pages that went back to the kernel would be cleared again each time.
        result.setdefault("MALLOC_MMAP_THRESHOLD_", str(8 << 20))
        result.setdefault("MALLOC_TRIM_THRESHOLD_", str(64 << 20))
    return result
