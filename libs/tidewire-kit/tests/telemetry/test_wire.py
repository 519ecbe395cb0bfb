"""The batch decoder against the public schema, on every encoding that protobuf allows."""

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire.type.v1.telemetry_pb2 import TelemetryBatch, TelemetryFrame
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.telemetry import layout, wire
from tidewire_kit.telemetry.device_lists import DeviceLists
from tidewire_kit.telemetry.wire import decode_batch

BATCH_ID = "9f1d6a34-5c2e-4b7a-8e8f-0123456789ab"


@pytest.fixture(params=["small", "large"], autouse=True)
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test runs twice: as batches of any size are decoded, and as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "LARGE_BYTES", 0 if request.param == "large" else 1 << 30)
        patch.setattr(wire, "_LEARN_EVERY", 1)
        yield


def tag(number: int, wire_type: int) -> bytes:
    return bytes([number << 3 | wire_type])


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, body: bytes) -> bytes:
    return tag(number, 2) + varint(len(body)) + body


def column(draw: st.DrawFn, number: int, code: str, items: list[float] | list[int]) -> list[bytes]:
    """The pieces of a column: packed whole, or cut anywhere into packed and not packed pieces."""
    wire_type = 5 if code == "I" else 1
    pieces: list[bytes] = []
    while items:
        size = draw(st.sampled_from([len(items), len(items), 1, 2, 3]))
        part, items = items[:size], items[size:]
        if draw(st.booleans()) or len(part) > 3:
            pieces.append(field(number, struct.pack(f"<{len(part)}{code}", *part)))
        else:
            pieces += [tag(number, wire_type) + struct.pack(f"<{code}", item) for item in part]
    if draw(st.integers(0, 9)) == 0:
        pieces.insert(0, field(number, b""))
    return pieces


def interleave(draw: st.DrawFn, groups: list[list[bytes]]) -> bytes:
    """All pieces in any order that keeps each group's own."""
    order = draw(st.permutations([number for number, group in enumerate(groups) for _ in group]))
    iterators = [iter(group) for group in groups]
    return b"".join(next(iterators[number]) for number in order)


@st.composite
def frames(draw: st.DrawFn, devices: int) -> bytes:
    rows = draw(st.integers(1, 8))
    metrics = draw(
        st.lists(st.sampled_from(["a", "b", "temperature", "x_1"]), min_size=1, max_size=3, unique=True)
    )
    index = (
        draw(st.lists(st.integers(0, devices - 1), min_size=rows, max_size=rows))
        if draw(st.booleans())
        else []
    )
    times = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=rows, max_size=rows))
    cells = rows * len(metrics)
    values = draw(st.lists(st.floats(), min_size=cells, max_size=cells))
    groups = [
        [field(1, metric.encode()) for metric in metrics],
        column(draw, 2, "I", index),
        column(draw, 3, "q", times),
        column(draw, 4, "d", values),
    ]
    if draw(st.integers(0, 5)) == 0:
        groups.append([field(15, b"from the future"), tag(14, 0) + b"\x07"])
    if draw(st.booleans()):
        return b"".join(b"".join(group) for group in groups)
    return interleave(draw, groups)


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    names = draw(st.lists(st.sampled_from(["d1", "d2", "gw:7", "ÄÖ"]), max_size=4))
    groups = [
        [field(1, BATCH_ID.encode())],
        [tag(2, 0) + varint(draw(st.integers(0, 2**64 - 1)))],
        [field(3, name.encode()) for name in names],
        [field(4, draw(frames(len(names) or 1))) for _ in range(draw(st.integers(1, 3)))],
    ]
    return interleave(draw, groups) if draw(st.booleans()) else b"".join(map(b"".join, groups))


def assert_like_public(raw: bytes) -> None:
    public = TelemetryBatch.FromString(raw)
    batch = decode_batch(raw)
    assert batch.batch_id_text == public.batch_id or not public.batch_id
    assert batch.sequence == public.sequence
    assert batch.devices == list(public.devices)
    assert len(batch.frames) == len(public.frames)
    for frame, message in zip(batch.frames, public.frames, strict=True):
        values = np.array(message.values, np.float64)
        assert frame.metrics == tuple(message.metrics)
        assert frame.time_unix_us.tolist() == list(message.time_unix_us)
        np.testing.assert_array_equal(frame.values.reshape(-1).view(np.uint64), values.view(np.uint64))
        index = list(message.device_index) or [0] * frame.rows
        assert (frame.device_index.tolist() if frame.device_index is not None else [0] * frame.rows) == index
        assert frame.readings == np.count_nonzero(~np.isnan(values))
        assert frame.complete == np.isfinite(values).all()


@settings(deadline=None)
@given(batches())
def test_every_legal_encoding_decodes_as_with_the_public_schema(raw: bytes) -> None:
    public = TelemetryBatch.FromString(raw)
    if any(np.isnan(np.array(frame.values)).all() for frame in public.frames):
        with pytest.raises(InvalidArgument, match=r"frames\[\d\].values: .* all are NaN"):
            decode_batch(raw)
    else:
        assert_like_public(raw)


def valid_by_public_schema(raw: bytes) -> bool:
    try:
        TelemetryBatch.FromString(raw)
    except DecodeError:
        return False
    return True


def error_of(raw: bytes) -> InvalidArgument | None:
    try:
        decode_batch(raw)
    except InvalidArgument as error:
        return error
    return None


@settings(deadline=None)
@given(batches(), st.data())
def test_changed_bytes_decode_as_with_the_public_schema_or_name_a_field(
    raw: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(raw[: data.draw(st.integers(0, len(raw)))])
    if damaged and data.draw(st.booleans()):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    error = error_of(bytes(damaged))
    if error is None:
        assert_like_public(bytes(damaged))
    else:
        assert error.field
        assert (error.reason == "MALFORMED_MESSAGE") == (not valid_by_public_schema(bytes(damaged)))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_never_crash(raw: bytes) -> None:
    error = error_of(raw)
    if error is None:
        assert_like_public(raw)
    else:
        assert error.field


def refused(batch: TelemetryBatch) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        decode_batch(batch.SerializeToString())
    return caught.value


def frame_of(**changes: object) -> TelemetryFrame:
    fields: dict[str, object] = {
        "metrics": ["a", "b"],
        "time_unix_us": [1, 2],
        "values": [1.0, 2.0, 3.0, 4.0],
    }
    return TelemetryFrame(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frame", "reason", "name", "why"),
    [
        (frame_of(values=[1.0, 2.0, 3.0]), "COLUMN_LENGTHS", "frames[1].values", "3 elements, but 2 rows × 2"),
        (frame_of(device_index=[0]), "COLUMN_LENGTHS", "frames[1].device_index", "1 elements, but time"),
        (frame_of(device_index=[0, 9]), "DEVICE_INDEX_RANGE", "frames[1].device_index", "is 9 in row 1, but the"),
        (frame_of(time_unix_us=[]), "NO_ROWS", "frames[1].time_unix_us", "is empty"),
        (frame_of(time_unix_us=[], values=[]), "NO_ROWS", "frames[1].time_unix_us", "is empty"),
        (frame_of(metrics=[]), "NO_METRICS", "frames[1].metrics", "is empty"),
        (frame_of(metrics=["a", "a"]), "DUPLICATE_METRIC", "frames[1].metrics", "'a' more than once"),
        (frame_of(values=[float("nan")] * 4), "NO_READINGS", "frames[1].values", "all are NaN"),
    ],
)  # fmt: skip
def test_a_bad_frame_is_named_with_counts_and_remedy(
    frame: TelemetryFrame, reason: str, name: str, why: str
) -> None:
    error = refused(TelemetryBatch(devices=["x", "y", "z"], frames=[frame_of(), frame]))
    assert (error.reason, error.field) == (reason, name)
    assert why in error.message
    assert ";" in error.message  # what is wrong; what to do


def test_no_frames_too_many_frames_and_too_many_devices() -> None:
    assert refused(TelemetryBatch()).reason == "NO_FRAMES"
    assert refused(TelemetryBatch(frames=[frame_of()] * 1001)).reason == "TOO_MANY_FRAMES"
    assert refused(TelemetryBatch(frames=[frame_of()], devices=["d"] * 100_001)).reason == "TOO_MANY_DEVICES"


@pytest.mark.parametrize(
    "text", ["x", BATCH_ID + "0", " " * 36, BATCH_ID.replace("-", "+"), "0" * 30 + "  ", "-" * 36]
)
def test_a_batch_id_that_is_no_uuid(text: str) -> None:
    error = refused(TelemetryBatch(batch_id=text, frames=[frame_of()]))
    assert (error.reason, error.field) == ("BAD_BATCH_ID", "batch_id")


def test_batch_ids_with_and_without_hyphens_are_the_same_and_an_empty_one_is_made() -> None:
    ids = [BATCH_ID, BATCH_ID.replace("-", ""), BATCH_ID.upper()]
    decoded = [
        decode_batch(TelemetryBatch(batch_id=text, frames=[frame_of()]).SerializeToString()) for text in ids
    ]
    assert {batch.batch_id for batch in decoded} == {bytes.fromhex(ids[1])}
    assert [batch.batch_id_text for batch in decoded] == ids
    raw = TelemetryBatch(frames=[frame_of()]).SerializeToString()
    made = decode_batch(raw)
    assert bytes.fromhex(made.batch_id_text.replace("-", "")) == made.batch_id
    assert decode_batch(raw).batch_id != made.batch_id


@pytest.mark.parametrize(
    ("raw", "name", "why"),
    [
        (field(4, field(4, b"1234567")), "frames[0].values", "7 bytes, not a multiple of 8"),
        (field(4, field(1, b"a")) + field(4, tag(4, 2) + b"\x50abc"), "frames[1].values", "is truncated"),
        (field(3, b"\xff\xfe"), "devices[0]", "is not UTF-8"),
        (field(1, b"x" * 50)[:20], "batch_id", "is truncated"),
        (b"\x07", "message", "bad tag at byte 0"),
        (b"\xff" * 11, "message", "more than 10 bytes"),
    ],
)  # fmt: skip
def test_malformed_bytes_name_the_place(raw: bytes, name: str, why: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode_batch(raw)
    assert caught.value.field == name
    assert why in caught.value.message


NAMES = [f"device-{number}" for number in range(20)]


def test_equal_lists_of_devices_are_one_list_and_unequal_ones_are_not() -> None:
    lists = [NAMES, NAMES, [*NAMES[:-1], "other"], NAMES[:-1], [*NAMES, "more"], NAMES]
    decoded = [
        decode_batch(
            TelemetryBatch(sequence=number, devices=devices, frames=[frame_of()]).SerializeToString()
        )
        for number, devices in enumerate(lists * 3)
    ]
    assert [batch.devices for batch in decoded] == lists * 3
    assert [batch.sequence for batch in decoded] == list(range(18))
    same = {id(batch.devices) for batch, devices in zip(decoded, lists * 3, strict=True) if devices is NAMES}
    assert (len(same) == 1) == (layout.LARGE_BYTES == 0)


@pytest.mark.parametrize(
    "more", [TelemetryBatch(devices=["x"]), TelemetryBatch(sequence=7), TelemetryBatch(batch_id=BATCH_ID)]
)
def test_fields_that_come_again_behind_a_known_list_are_merged(more: TelemetryBatch) -> None:
    raw = TelemetryBatch(sequence=3, devices=NAMES, frames=[frame_of()]).SerializeToString()
    decode_batch(raw)
    assert_like_public(raw + more.SerializeToString())
    assert_like_public(more.SerializeToString() + raw)
    assert_like_public(raw)


def section(*names: str) -> bytes:
    return TelemetryBatch(devices=names).SerializeToString()


def test_remembered_lists_are_bounded_and_the_oldest_go_first() -> None:
    lists = DeviceLists(max_bytes=10_000)
    for number in range(40):
        names = [f"device-{number}-{each}" for each in range(10)]
        lists.learn(section(*names), names)
    assert lists.match(b"??" + section(*names) + b"rest", 2) == (names, 2 + len(section(*names)))
    first = section(*[f"device-0-{each}" for each in range(10)])
    assert lists.match(first, 0) == (None, 0)


def test_of_lists_that_begin_alike_the_longest_that_fits_is_found() -> None:
    lists = DeviceLists()
    for length in (12, 20, 15):
        lists.learn(section(*NAMES[:length]), NAMES[:length])
        lists.learn(section(*NAMES[:length]), NAMES[:length])
    assert lists.match(section(*NAMES[:19]), 0)[0] == NAMES[:15]
    assert lists.match(section(*NAMES), 0)[0] == NAMES
    assert lists.match(section(*NAMES[:11]), 0)[0] is None


@pytest.mark.timeout(30)  # they took from seconds to minutes, in which nobody else was served
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x0a\x00\x10" + b"\xff" * (4 << 20), id="a number of 4 MiB"),
        pytest.param(b"\x78\x01" * (2 << 20) + b"\xff", id="two million fields nobody knows"),
        pytest.param(b"\x1a\x00" * (2 << 20) + b"\xff", id="two million devices"),
    ],
)
def test_a_malformed_message_holds_nobody_up(raw: bytes) -> None:
    with pytest.raises(InvalidArgument) as error:
        decode_batch(raw)
    assert error.value.reason == "MALFORMED_MESSAGE"
