"""What a benchmark returns, how long it may take, and the helpers that all of them need."""

import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `at_most` says that less is better; `reference` names what it was held against, or what
    limits it."""

    name: str
    value: float
    unit: str
    goal: float
    reference: str = ""
    at_most: bool = False

    @property
    def reached(self) -> bool:
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def as_dict(self) -> dict[str, Any]:
        """{name, value, unit, goal, reached, reference}, and at_most."""
        return {**asdict(self), "reached": self.reached}

    def cells(self) -> list[str]:
        """The cells of a row of the table."""
        sign = "≤" if self.at_most else "≥"
        return [
            self.name,
            f"{self.value:,.3g}" if self.value < 1000 else f"{self.value:,.0f}",
            f"{sign} {self.goal:,g}",
            self.unit,
            "yes" if self.reached else "NO",
            self.reference,
        ]


@dataclass(frozen=True, slots=True)
class Scale:
    """How long to measure: `rounds` runs of `seconds` each, and `long_seconds` for what must hold over time."""

    rounds: int
    seconds: float
    long_seconds: float
    keep: Path | None = None
    """Where data that takes long to make stays for the next run; None: it is made anew."""

    @classmethod
    def full(cls) -> "Scale":
        return cls(rounds=5, seconds=6, long_seconds=60)

    @classmethod
    def quick(cls) -> "Scale":
        return cls(rounds=1, seconds=2, long_seconds=5)


def median(measure: Callable[[], float], rounds: int) -> float:
    """Median of `rounds` calls."""
    return statistics.median(measure() for _ in range(rounds))


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system CPU seconds that the processes have used so far."""
    total = 0.0
    for pid in pids:
        times = psutil.Process(pid).cpu_times()
        total += times.user + times.system
    return total


def pss_bytes(pids: Iterable[int]) -> int:
    """Memory of the processes together, shared pages counted once."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids)


class PeakMemory:
    """Samples the memory of processes, on a thread, while the block runs."""

    def __init__(self, pids: Iterable[int], every_seconds: float = 0.25) -> None:
        self._pids = list(pids)
        self._every_seconds = every_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)
        self.peak_bytes = 0
        """Most that was seen, PSS."""

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def peak_mib(self) -> float:
        """Most that was seen, in MiB PSS."""
        return self.peak_bytes / 2**20

    def _sample(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, pss_bytes(self._pids))
            if self._ended.wait(self._every_seconds):
                return


def progress(text: str) -> None:
    """Says on stderr how far something long is: a line of its own, or on a terminal in place of the one before."""
    terminal = sys.stderr.isatty()
    print(
        f"\r\033[K  {text}" if terminal else f"  {text}",
        end="" if terminal else "\n",
        file=sys.stderr,
        flush=True,
    )


def start_load(**options: object) -> subprocess.Popen[str]:
    """Starts benchmarks.loader with `--option value` for each keyword."""
    words = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.loader", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def load(**options: object) -> dict[str, Any]:
    """Runs the loader to its end and returns what it measured; RuntimeError when nothing was acknowledged."""
    return loaded(start_load(**options))


def loaded(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Waits for a loader to end; returns what it measured. RuntimeError when it failed."""
    out, _ = process.communicate()
    if process.returncode or not out.strip():
        raise RuntimeError(f"the load generator failed with exit status {process.returncode}")
    result: dict[str, Any] = json.loads(out)
    return result
