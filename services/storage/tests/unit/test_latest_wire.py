"""The bytes of GetLatest are those of a message, whatever names and numbers."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire.storage.v1 import storage_pb2 as pb
from tidewire_storage.application.latest import SeriesColumns, SeriesPage
from tidewire_storage.latest_wire import page_encoded, page_to_latest

IDS = st.lists(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}", fullmatch=True), min_size=1, max_size=6)
METRICS = st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True), min_size=1, max_size=6)
ENTRIES = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, 5),
        st.integers(-(1 << 62), 1 << 62),
        st.one_of(st.floats(allow_nan=False), st.just(0.0), st.just(-0.0)),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(st.lists(st.tuples(IDS, METRICS, ENTRIES), max_size=3), st.text(max_size=200))
def test_generated_code_reads_the_same(
    parts: list[tuple[list[str], list[str], list[tuple[int, int, int, float]]]], token: str
) -> None:
    page, expected = SeriesPage([], token), pb.GetLatestResponse(next_page_token=token)
    for ids, metrics, entries in parts:
        rows = [(device % len(ids), metric % len(metrics), *rest) for device, metric, *rest in entries]
        columns = [np.array([row[place] for row in rows]) for place in range(4)]
        page.parts.append(
            SeriesColumns(
                ids,
                metrics,
                columns[0].astype(np.int32),
                columns[1].astype(np.int32),
                columns[2].astype(np.int64),
                columns[2].astype(np.int64),
                columns[3].astype(np.float64),
            )
        )
        for device, metric, time_us, value in rows:
            expected.values.add(device=ids[device], metric=metrics[metric], time_unix_us=time_us, value=value)
    for answer in (page_to_latest(page), page_encoded(page)):
        assert pb.GetLatestResponse.FromString(answer.SerializeToString()) == expected


def test_the_longest_names() -> None:
    column = np.array([5, 6])
    both = np.array([0, 1], np.int32)
    part = SeriesColumns(["d" * 63, "e"], ["m" * 63, "n"], both, both, column, column, column / 2)
    message = pb.GetLatestResponse.FromString(page_encoded(SeriesPage([part])).SerializeToString())
    assert [(one.device, one.metric, one.time_unix_us, one.value) for one in message.values] == [
        ("d" * 63, "m" * 63, 5, 2.5),
        ("e", "n", 6, 3.0),
    ]
