import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.owner import PieceOfTable
from tidewire_storage.application.sweep import Wanted
from tidewire_storage.domain.rows import ROW_BITS, Piece, not_among, order_of, sort_pieces, unique_uids
from tidewire_storage.domain.series import NEVER, merge_states, states_of, unpack_states
from tidewire_testkit.telemetry import make_table

TENANT = TenantId(new_uid())
UIDS = [new_uid() for _ in range(5)]
ROW = st.tuples(
    st.integers(0, 4), st.integers(0, 9), st.one_of(st.just(math.nan), st.integers(0, 99).map(float))
)
PIECES = st.lists(st.tuples(st.lists(ROW, min_size=1, max_size=8), st.booleans()), min_size=1, max_size=6)


def pieces_of(
    batches: list[tuple[list[tuple[int, int, float]], bool]],
) -> tuple[list[Piece], list[tuple[int, int, float, int]]]:
    """Pieces at offsets 10, 11, ... (of those marked every second row counts), and the rows in order of arrival."""
    pieces, rows = [], []
    for number, (batch, thinned) in enumerate(batches):
        table = make_table(TENANT, ["m"], [(UIDS[device], time, [value]) for device, time, value in batch])
        kept = np.arange(0, len(batch), 2) if thinned else None
        pieces.append(Piece(10 + number, PieceOfTable(table, 3, kept)))
        first = (10 + number << ROW_BITS) + 3
        rows += [(*batch[row], first + row) for row in range(0, len(batch), 2 if thinned else 1)]
    return pieces, rows


@settings(deadline=None)
@given(PIECES)
def test_rows_are_sorted_by_device_and_time_and_keep_their_arrival(batches) -> None:
    pieces, rows = pieces_of(batches)
    table = sort_pieces(("m",), pieces, with_arrival=True)
    assert table.arrival is not None
    found = []
    first = 0
    for uid, count in zip(table.device_uids, table.row_counts.tolist(), strict=True):
        device = UIDS.index(uid.tobytes())
        mine = [row for row in rows if row[0] == device]
        expected = sorted(mine, key=lambda row: row[1])  # stable: arrival decides
        stop = first + count
        assert table.time_unix_us[first:stop].tolist() == [row[1] for row in expected]
        assert table.arrival[first:stop].tolist() == [row[3] for row in expected]
        assert repr(table.values[0][first:stop].tolist()) == repr([row[2] for row in expected])
        found.append(device)
        first = stop
    assert sorted(found) == sorted({row[0] for row in rows})
    assert table.readings() == sum(not math.isnan(row[2]) for row in rows)


@settings(deadline=None)
@given(PIECES)
def test_series_states_are_those_of_all_readings(batches) -> None:
    """However the readings are cut into flushes, and whether a state is merged once or twice."""
    pieces, rows = pieces_of(batches)
    parts = [
        states_of(TENANT, sort_pieces(("m",), [piece]), piece.offset << 20)
        for piece in pieces
        if _rows(piece)
    ]
    merged = merge_states([*parts, *parts])
    packed = unpack_states(TENANT, ("m",), [uid.tobytes() for uid in merged.device_uids], merged.pack())
    for states in (merged, packed):
        for number, uid in enumerate(states.device_uids):
            device = UIDS.index(uid.tobytes())
            mine = [row for row in rows if row[0] == device and not math.isnan(row[2])]
            if not mine:
                assert states.last_us[0, number] == NEVER
                continue
            newest = max(mine, key=lambda row: (row[1], row[3]))
            assert states.first_us[0, number] == min(row[1] for row in mine)
            assert (states.last_us[0, number], states.value[0, number]) == newest[1:3]


def _rows(piece: Piece) -> int:
    return piece.piece.table.rows if piece.piece.rows is None else len(piece.piece.rows)


def test_uids_that_fold_to_the_same_word_stay_apart() -> None:
    fold = 0x9E3779B97F4A7C15
    first = np.array([[1, 5]], np.uint64)
    second = np.array([[2, (1 * fold ^ 5 ^ 2 * fold) & (1 << 64) - 1]], np.uint64)
    uids = np.concatenate([first, second, first]).view(np.uint8).reshape(-1, 16)
    unique, index = unique_uids(uids)
    assert len(unique) == 2
    assert unique[index].tobytes() == uids.tobytes()


def test_the_devices_of_a_question_are_numbered() -> None:
    same = [bytes([number]) + bytes(7) + b"same end" for number in (3, 1, 2)]
    asked = [new_uid(), *same, new_uid()]
    stored = [same[2], new_uid(), asked[0], bytes([9]) + bytes(7) + b"same end", same[0], asked[4]]
    numbers = Wanted(asked).numbers(np.frombuffer(b"".join(stored), np.uint8).reshape(-1, 16))
    assert numbers.tolist() == [3, -1, 0, -1, 1, 4]


def test_dropping_devices() -> None:
    pieces, _ = pieces_of([([(0, 1, 1.0), (1, 2, 2.0), (2, 3, 3.0), (1, 4, 4.0)], False)])
    table = sort_pieces(("m",), pieces)
    rest = table.keep_devices(not_among(table.device_uids, {UIDS[1]}))
    assert sorted(rest.values[0].tolist()) == [1.0, 3.0]
    assert rest.rows == 2


@given(
    arrays.arrays(np.uint16, st.shared(st.integers(1, 60), key="rows"), elements=st.integers(0, 4)),
    arrays.arrays(
        np.int64,
        st.shared(st.integers(1, 60), key="rows"),
        elements=st.one_of(st.integers(-3, 3), st.integers(-(1 << 62), 1 << 62)),
    ),
)
def test_rows_are_ordered_by_device_and_time_and_equal_ones_stay_in_order_of_arrival(
    slots: np.ndarray, times: np.ndarray
) -> None:
    order, ordered = order_of(slots, times)
    np.testing.assert_array_equal(order, np.lexsort((times, slots)))
    np.testing.assert_array_equal(ordered, times[order])
