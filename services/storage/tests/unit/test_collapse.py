"""Collapsing parts gives what a dictionary would: the latest arrival of each (device, metric, time), in order."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire_storage.domain.collapse import Part, collapse

ROW = st.tuples(st.integers(0, 3), st.integers(0, 60), st.sampled_from([math.nan, 1.0, 2.0, 3.0]))
PARTS = st.lists(
    st.tuples(st.permutations(range(4)), st.integers(0, 2), st.lists(ROW, min_size=1, max_size=60)),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(parts=PARTS, apart=st.booleans())
def test_it_is_a_dictionary(
    parts: list[tuple[list[int], int, list[tuple[int, int, float]]]], apart: bool
) -> None:
    made = []
    model: dict[tuple[int, int], float] = {}
    for number, (rank, arrival, rows) in enumerate(parts):
        # Devices in an order of the part's own, rows of each by time, as in blocks; `apart`: as days follow days.
        shift, arrival = (100 * number if apart else 0), arrival * 10 + number
        rows = sorted(
            ((device, time + shift, value) for device, time, value in rows), key=lambda r: (rank[r[0]], r[1])
        )
        device, time, value = zip(*rows, strict=True)
        made.append(
            (
                arrival,
                Part(
                    np.array(device, np.int32),
                    np.array(time, np.int64),
                    np.full(len(rows), arrival),
                    {"a": np.array(value)},
                ),
            )
        )
    for _, part in sorted(made, key=lambda item: item[0]):
        for device, time, value in zip(part.device, part.time, part.columns["a"], strict=True):
            if not math.isnan(value):
                model[int(device), int(time)] = float(value)
    found = collapse([part for _, part in made], ("a",))
    keys = list(zip(found.device.tolist(), found.time.tolist(), strict=True))
    assert keys == sorted(model)
    assert found.values[0].tolist() == [model[key] for key in keys]


def test_long_runs_of_devices_in_another_order_are_put_in_order() -> None:
    """The way that needs no sorting of rows: 3 parts of 5 devices, each with 100 rows, latest devices first."""
    parts = [
        Part(
            np.repeat(np.arange(4, -1, -1, dtype=np.int32), 100),
            np.tile(np.arange(100, dtype=np.int64) + 100 * day, 5),
            np.full(500, day),
            {"a": np.arange(500.0) + 1000 * day},
        )
        for day in (2, 0, 1)
    ]
    found = collapse(parts, ("a",))
    assert found.device.tolist() == np.repeat(np.arange(5), 300).tolist()
    assert found.time.tolist() == np.tile(np.arange(300), 5).tolist()
    wanted = [
        1000 * day + (4 - device) * 100 + row for device in range(5) for day in range(3) for row in range(100)
    ]
    assert found.values[0].tolist() == wanted
