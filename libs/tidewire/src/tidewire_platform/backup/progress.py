"""Shows on standard error how far a long copy is: a bar in a terminal, else a line now and then."""

import sys
import threading
import time
from types import TracebackType
from typing import Self

from tidewire_cli.looks import human_bytes
from tidewire_cli.output import Output

_EVERY_SECONDS = 10.0


class Progress:
    """A context; `add` from any thread."""

    def __init__(self, out: Output, what: str) -> None:
        self._out = out
        self._what = what
        self._total = self._done = 0
        self._lock = threading.Lock()
        self._said = time.monotonic()
        self._wide = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wide:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A sentence, with tables."""
        self._out.note(text)

    def expect(self, total: int) -> None:
        """How many bytes it will be."""
        self._total = total

    def add(self, count: int) -> None:
        """So many bytes more are done."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            terminal = sys.stderr.isatty()
            if not self._out.for_people or now - self._said < (0.2 if terminal else _EVERY_SECONDS):
                return
            self._said = now
            share = self._done / self._total if self._total else 1.0
            text = f"{self._what}: {human_bytes(self._done)} of {human_bytes(self._total)}, {share:.0%}"
            if terminal:
                self._wide = True
                print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
            else:
                print(text, file=sys.stderr, flush=True)
