"""Shows a running demo: a live table on a terminal, a plain line every few seconds elsewhere."""

import contextlib
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tidewire_platform.demo.stats import Stats

PLAIN_SECONDS = 5.0

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 30) -> str:
    """The last `width` values as bars, the lowest bar for 0, the highest for the greatest value shown."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return _BARS[0] * len(shown)
    return "".join(_BARS[min(int(value / top * len(_BARS)), len(_BARS) - 1)] for value in shown)


def refusals_text(stats: Stats) -> str:
    """Refused readings by reason, most first."""
    return ", ".join(f"{reason} {count:,}" for reason, count in stats.refused.most_common()) or "none"


class View:
    """The display of one run. `stage` says what is being done now."""

    def __init__(self, console: Console, stats: Stats) -> None:
        self.stage = ""
        self._console = console
        self._stats = stats
        self._live: Live | None = None
        self._plain_due = 0.0

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the display while the block runs."""
        if not self._console.is_terminal:
            yield
            return
        with Live(self._table(), console=self._console, auto_refresh=False, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def refresh(self) -> None:
        """Called about once a second."""
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        elif not self._console.is_terminal and time.monotonic() >= self._plain_due:
            self._plain_due = time.monotonic() + PLAIN_SECONDS
            self._console.print(self._line(), soft_wrap=True, highlight=False, markup=False)

    def _figures(self) -> tuple[float, str, str]:
        stats = self._stats
        rate = stats.rates[-1] if stats.rates else 0.0
        middle, worst = stats.ack_quantile_ms(0.5), stats.ack_quantile_ms(0.99)
        durable = "–" if middle is None or worst is None else f"{middle:.1f} ms, p99 {worst:.1f} ms"
        lag = stats.visible_lag_seconds
        return rate, durable, "–" if lag is None else f"{lag:.1f} s"

    def _line(self) -> str:
        stats = self._stats
        rate, durable, lag = self._figures()
        return (
            f"{time.monotonic() - stats.started:4.0f} s  accepted {stats.accepted:,}  visible {stats.visible:,} "
            f"(lag {lag})  {rate:,.0f} readings/s  durable in {durable}  refused: {refusals_text(stats)}  {self.stage}"
        )

    def _table(self) -> Table:
        stats = self._stats
        rate, durable, lag = self._figures()
        table = Table(
            title="Tidewire demo", caption=f"{self.stage}   Ctrl-C stops in order", show_header=False
        )
        table.add_column(style="bold")
        table.add_column(justify="right", min_width=14)
        table.add_column(min_width=32)
        table.add_row("accepted", f"{stats.accepted:,}", "readings, durable when acknowledged")
        table.add_row("visible", f"{stats.visible:,}", f"to queries; lag {lag}")
        table.add_row("refused", f"{stats.refused.total():,}", refusals_text(stats))
        table.add_row("readings/s", f"{rate:,.0f}", f"[green]{sparkline(stats.rates)}[/]")
        lag_now = stats.ack_lags_ms[-1] if stats.ack_lags_ms else 0.0
        table.add_row("durable lag", f"{lag_now:.1f} ms", f"[cyan]{sparkline(stats.ack_lags_ms)}[/]")
        table.add_row("", "", f"publish → acknowledged: {durable}")
        if stats.retries:
            table.add_row("sent again", f"{stats.retries:,}", "batches")
        return table
