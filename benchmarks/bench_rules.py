"""Conditions of rules and routes over frames, in process: evaluations (one condition in one row) per CPU second.

Frames have 10,000 rows of 3,000 devices and five metrics, as `data` makes them for ingestion; limits lie within the
readings, so that rows have to be looked at, except where the name says otherwise.
"""

import time
from collections.abc import Callable

import numpy as np

from benchmarks.figures import Figure, Scale, median
from tidewire_kit.cel import FactTable, Frame, ProgramSet, Scratch, compile_expression, parse
from tidewire_kit.devices import DeviceFacts

ROWS = 10_000
DEVICES = 3_000
METRICS = ("temperature", "humidity", "pressure", "wind", "battery")
SITES = 20


def run(scale: Scale) -> list[Figure]:
    """Each figure is the median of the rounds."""
    frame = _frames()

    def evaluations(texts: list[str]) -> float:
        programs = [compile_expression(parse(text)) for text in texts]

        def once() -> int:
            rows = frame()
            for program in programs:
                program.evaluate(rows)
            return len(programs) * ROWS

        return median(lambda: _per_cpu_second(once, scale.seconds / 6), scale.rounds) / 1e6

    simple = evaluations(_thresholds(100))
    labels = evaluations(
        [f'{text} && labels.site == "s{n % SITES}"' for n, text in enumerate(_thresholds(100))]
    )
    mixed = evaluations(
        [
            f"({metric} - {other}) / ({metric} + 200.0) > {limit:.3f} || {other} > 3.0"
            for metric, other in zip(METRICS, METRICS[::-1], strict=True)
            for limit in np.linspace(-0.01, 0.01, 20)
        ]
    )
    hundred = median(lambda: _set_readings(frame, _thresholds(100), scale.seconds / 6), scale.rounds) / 1e6
    rare = [f"{METRICS[n % 5]} > {6 + n / 1000}" for n in range(10_000)]
    many = median(lambda: _set_readings(frame, rare, scale.seconds / 6), scale.rounds) / 1e6
    note = f"{ROWS:,} rows a frame, one core; the evaluation alone, without reading records"
    return [
        Figure("conditions: metric > constant, 100", simple, "M evaluations/CPU s", 264, note),
        Figure("conditions: and a label, 100", labels, "M evaluations/CPU s", 100, note),
        Figure("conditions: arithmetic over two metrics, 100", mixed, "M evaluations/CPU s", 50, note),
        Figure("conditions: 100 limits within the readings", hundred, "M readings/CPU s", 16, note),
        Figure("conditions: 10,000 limits that nothing reaches", many, "M readings/CPU s", 100, note),
    ]


def _frames() -> Callable[[], Frame]:
    rng = np.random.default_rng(7)
    columns = {metric: rng.normal(size=ROWS) for metric in METRICS}
    slots = rng.integers(0, DEVICES, ROWS)
    devices = [
        DeviceFacts(f"d{n}", "station", {"site": f"s{n % SITES}"}, "", None, 2, 0, 0, ())
        for n in range(DEVICES)
    ]
    table, scratch = FactTable(devices.__getitem__), Scratch()
    return lambda: Frame(ROWS, columns, slots=slots, facts=table, scratch=scratch)


def _thresholds(count: int) -> list[str]:
    return [f"{METRICS[n % 5]} > {-2 + 4 * n / count}" for n in range(count)]


def _set_readings(frame: Callable[[], Frame], texts: list[str], seconds: float) -> float:
    """Readings per CPU second of a set of conditions."""
    programs = ProgramSet([compile_expression(parse(text)) for text in texts])

    def once() -> int:
        for _ in programs.evaluate(frame()):
            pass
        return ROWS * len(METRICS)

    return _per_cpu_second(once, seconds)


def _per_cpu_second(once: Callable[[], int], seconds: float) -> float:
    once()  # facts are worked out, scratch is there
    done, began = 0, time.process_time()
    while (spent := time.process_time() - began) < seconds:
        done += once()
    return done / spent
