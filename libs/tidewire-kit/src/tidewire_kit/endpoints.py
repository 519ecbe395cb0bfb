"""Who listens where in one data directory: `run/endpoints.json`.

Each service adds itself when it serves and removes itself when it stops; `tidewire up` and the tests read it, as ports
may be chosen by the system (port 0). Written under a lock, replaced whole; entries of dead processes are dropped.

    {"registry": [{"address": "127.0.0.1:7001", "metrics_address": "127.0.0.1:7101", "pid": 4711}]}
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass

from tidewire_kit.datadir import DataDir


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One process of a service."""

    address: str
    """gRPC target, `host:port`."""
    metrics_address: str
    """`host:port` of /metrics and the pages of health; "" when it has none."""
    pid: int


def read_endpoints(data_dir: DataDir) -> dict[str, list[Endpoint]]:
    """Returns service → its live processes; empty when nothing has started."""
    return _living(_load(data_dir))


def add_endpoint(data_dir: DataDir, service: str, endpoint: Endpoint) -> None:
    """Adds a process of a service, in place of what was there under its address."""

    def change(endpoints: dict[str, list[Endpoint]]) -> None:
        others = [other for other in endpoints.get(service, []) if other.address != endpoint.address]
        endpoints[service] = [*others, endpoint]

    _update(data_dir, change)


def remove_endpoint(data_dir: DataDir, service: str, endpoint: Endpoint) -> None:
    """Removes a process of a service; nothing happens when it is not there."""

    def change(endpoints: dict[str, list[Endpoint]]) -> None:
        endpoints[service] = [other for other in endpoints.get(service, []) if other != endpoint]

    _update(data_dir, change)


def _update(data_dir: DataDir, change: Callable[[dict[str, list[Endpoint]]], None]) -> None:
    descriptor = os.open(data_dir.run / "endpoints.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        endpoints = _living(_load(data_dir))
        change(endpoints)
        shown = {name: [asdict(entry) for entry in entries] for name, entries in endpoints.items() if entries}
        handle, temporary = tempfile.mkstemp(dir=data_dir.run, prefix=".endpoints.")
        with os.fdopen(handle, "w") as file:
            json.dump(shown, file, indent=1)
        os.replace(temporary, data_dir.endpoints_file)
    finally:
        os.close(descriptor)


def _load(data_dir: DataDir) -> dict[str, list[Endpoint]]:
    try:
        data = json.loads(data_dir.endpoints_file.read_text())
        return {name: [Endpoint(**entry) for entry in entries] for name, entries in data.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        # Run-time state: whoever is alive writes it again at its next start, so a damaged file is an empty one.
        return {}


def _living(endpoints: dict[str, list[Endpoint]]) -> dict[str, list[Endpoint]]:
    living = {
        name: [entry for entry in entries if _is_alive(entry.pid)] for name, entries in endpoints.items()
    }
    return {name: entries for name, entries in living.items() if entries}


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # another user's
    return True
