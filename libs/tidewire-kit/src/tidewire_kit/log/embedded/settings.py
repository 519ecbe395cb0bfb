"""What may be set on the embedded log. The composition root fills it from the process's settings; tests shrink it."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30


def wall_clock_us() -> int:
    """Unix time in µs. Log time is this, held back from ever running backwards."""
    return time.time_ns() // 1000


def free_disk_bytes(path: Path) -> int:
    """Bytes that an unprivileged process may still write to the file system of `path`."""
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


def default_cap_bytes(path: Path) -> int:
    """The smaller of 20 % of the disk and 20 GiB: a log must not take the disk from what it feeds."""
    facts = os.statvfs(path)
    return min(facts.f_blocks * facts.f_frsize // 5, 20 * GIBIBYTE)


def machine_boot_id() -> str:
    """Names this run of the kernel. What a process left unsynced is only to be trusted within one run."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        # Elsewhere than on Linux: the moment of boot, in units coarse enough to hide the clocks' drift.
        return f"boot-{round((time.time() - time.monotonic()) / 600)}"


@dataclass(frozen=True, slots=True)
class EmbeddedLogSettings:
    """Sizes in bytes, times in seconds."""

    log_cap_bytes: int | None = None
    """Most the log may hold over all topics. None: the smaller of 20 % of the disk and 20 GiB."""
    min_free_bytes: int = GIBIBYTE
    """Below this much free disk nothing is appended, so that the stores behind the log can still finish their work."""
    retention_holders: tuple[str, ...] = ("tidewire.storage", "tidewire.alerting")
    """Consumer groups whose uncommitted records are never removed (once they have registered for a topic)."""
    segment_bytes: int = 64 * MEBIBYTE
    """A segment file is closed at this size. Retention removes whole segments."""
    preallocate_bytes: int = 4 * MEBIBYTE
    """The active segment is extended in such steps: fdatasync without a change of size costs half the CPU."""
    index_interval_bytes: int = MEBIBYTE // 4
    """Distance of the entries of a segment's sparse index: a seek reads at most this much in vain."""
    cached_segments: int = 2
    """Closed segments per topic that stay in the page cache; older ones are dropped from it. Reusing warm pages makes
    writing two to ten times cheaper than taking new ones, and a container's memory limit counts them all."""
    commit_interval_seconds: float = 0.001
    """Commits of a topic begin at least this far apart (at most 1 ms); after a pause the first begins at once. A commit
    costs 0.1 to 0.25 ms of CPU whatever it carries, so under load it shall carry what a millisecond brings."""
    heartbeat_seconds: float = 2.0
    """How often a process renews its announcement."""
    member_timeout_seconds: float = 5.0
    """A process not heard of for so long is gone."""
    fallback_poll_seconds: float = 0.25
    """How often readers look by themselves, in case a wake-up was lost."""
    maintenance_seconds: float = 10.0
    """How often retention runs (also at once when the cap is reached)."""
    retry_delay_seconds: float = 5.0
    """What a caller is told to wait when the log is full."""
    clock_us: Callable[[], int] = wall_clock_us
    free_bytes: Callable[[Path], int] = free_disk_bytes
    boot_id: Callable[[], str] = machine_boot_id
