import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.owner import DedupWindow, SegmentHasher
from tidewire_testkit.telemetry import joined, make_table

TENANT = TenantId(new_uid())
HASHER = SegmentHasher(b"an incarnation..")
SECOND = 1_000_000


def entries(*batches: tuple[bytes, float], at_us: int = 0, tenant: TenantId = TENANT):
    """One segment for each (batch id, value)."""
    tables = [
        make_table(tenant, ["m"], [(bytes(16), 0, [value])], batch_id=batch) for batch, value in batches
    ]
    return HASHER.entries([joined(tables)], [at_us])


def test_a_segment_is_dropped_only_when_id_and_digest_were_seen() -> None:
    window = DedupWindow()
    a, b = new_uid(), new_uid()
    assert window.admit(entries((a, 1.0), (b, 1.0))).tolist() == [True, True]
    assert window.admit(entries((a, 1.0), (a, 2.0), (b, 1.0))).tolist() == [False, True, False]


def test_the_same_batch_id_of_another_publisher_or_tenant_is_another_segment() -> None:
    window = DedupWindow()
    batch = new_uid()
    rows = [(bytes(16), 0, [1.0])]
    tables = [
        make_table(TENANT, ["m"], rows, batch_id=batch, publisher=b"p" * 16),
        make_table(TENANT, ["m"], rows, batch_id=batch, publisher=b"q" * 16),
        make_table(TenantId(new_uid()), ["m"], rows, batch_id=batch, publisher=b"p" * 16),
    ]
    found = HASHER.entries(tables, [0, 0, 0])
    assert window.admit(found).all()
    assert not window.admit(found).any()


def test_a_segment_twice_in_one_record_counts_once() -> None:
    window = DedupWindow()
    a, b = new_uid(), new_uid()
    assert window.admit(entries((a, 1.0), (b, 2.0), (a, 1.0), (a, 3.0))).tolist() == [True, True, False, True]


def test_the_window_is_ten_minutes_of_log_time() -> None:
    window = DedupWindow(seconds=600)
    batch = new_uid()
    assert window.admit(entries((batch, 1.0))).all()
    assert not window.admit(entries((batch, 1.0), at_us=600 * SECOND)).any()
    assert window.admit(entries((batch, 1.0), at_us=601 * SECOND)).all()
    assert not window.admit(entries((batch, 1.0), at_us=602 * SECOND)).any(), "seen again, it counts anew"


def test_the_window_is_so_many_segments() -> None:
    window = DedupWindow(segments=64)
    batches = [(new_uid(), float(number)) for number in range(200)]
    for batch in batches:
        window.admit(entries(batch))
    assert len(window) == 64
    assert not window.admit(entries(*batches[-64:])).any()
    assert window.admit(entries(*batches[:100])).all()


def test_a_loaded_window_knows_what_the_stored_one_knew() -> None:
    first = DedupWindow(segments=256)
    batches = [(new_uid(), float(number)) for number in range(300)]
    noted = entries(*batches)
    first.admit(noted)
    second = DedupWindow(segments=256)
    second.load(np.frombuffer(noted.tobytes(), "<u8").reshape(-1, 4))
    assert second.admit(entries(*batches)).tolist() == first.admit(entries(*batches)).tolist()


def test_forgotten_entries_are_new_again() -> None:
    window = DedupWindow()
    a, b = entries((new_uid(), 1.0)), entries((new_uid(), 1.0))
    window.admit(a)
    window.admit(b)
    window.forget(a)
    assert window.admit(a).all()
    assert not window.admit(b).any()


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2)), min_size=1, max_size=20), max_size=30)
)
def test_it_is_a_set_of_the_last_segments(records: list[list[tuple[int, int]]]) -> None:
    """Model: the last 32 new segments, in order."""
    window = DedupWindow(segments=32)
    seen: list[tuple[int, int]] = []
    for record in records:
        found = np.array([[batch, 7, digest, 0] for batch, digest in record], np.uint64)
        expected = []
        held = seen[-32:]
        fresh = []
        for segment in record:
            expected.append(segment not in held and segment not in fresh)
            if expected[-1]:
                fresh.append(segment)
        seen += fresh
        assert window.admit(found).tolist() == expected


def test_keys_differ_by_every_byte() -> None:
    rows = [(bytes(16), 0, [1.0])]
    keys = set()
    for place in range(48):
        text = bytearray(48)
        text[place] = 1
        tenant, publisher, batch = bytes(text[:16]), bytes(text[16:32]), bytes(text[32:])
        table = make_table(TenantId(tenant), ["m"], rows, batch_id=batch, publisher=publisher)
        keys.add(HASHER.entries([table], [0])[0, :2].tobytes())
    assert len(keys) == 48
