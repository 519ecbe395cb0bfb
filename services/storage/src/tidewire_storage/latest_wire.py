"""GetLatestResponse as bytes, made from columns: an object for each of 15,000 values would take most of the call.

Used by `grpc_api`; `tests/unit/test_latest_wire.py` has the generated code read what this writes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidewire.storage.v1 import storage_pb2 as pb
from tidewire_storage.application.latest import SeriesColumns, SeriesPage
from tidewire_storage.wire import EncodedResponse

_VALUES, _DEVICE, _METRIC = b"\x0a", b"\x0a", b"\x12"
"""Tags: field 1, 1 and 2, length-delimited."""
_TIME, _VALUE = 0x19, 0x21
"""Tags: fields 3 and 4, 64 bits."""
_NUMBERS_BYTES = 18
_FEW = 32
"""Values that are quicker as messages."""


def page_to_latest(page: SeriesPage) -> EncodedResponse | pb.GetLatestResponse:
    """A page of GetLatest."""
    return _message(page) if sum(map(len, page.parts)) <= _FEW else page_encoded(page)


def _message(page: SeriesPage) -> pb.GetLatestResponse:
    return pb.GetLatestResponse(
        values=[
            pb.LatestValue(device=one.device_id, metric=one.metric, time_unix_us=one.last_us, value=one.value)
            for one in page.entries
        ],
        next_page_token=page.next_page_token,
    )


def page_encoded(page: SeriesPage) -> EncodedResponse:
    """A page of any size."""
    token = pb.GetLatestResponse(next_page_token=page.next_page_token).SerializeToString()
    return EncodedResponse(b"".join([_encoded(part) for part in page.parts if len(part)] + [token]))


def _encoded(part: SeriesColumns) -> bytes:
    """Every entry is laid out in a row of its own, at the width of the longest, and what is not used left out."""
    used, device = np.unique(part.device, return_inverse=True)
    devices, devices_length = _texts(_DEVICE, [part.device_ids[number] for number in used.tolist()])
    metrics, metrics_length = _texts(_METRIC, part.metrics)
    lengths = devices_length[device] + metrics_length[part.metric] + _NUMBERS_BYTES
    # A length of 128 or more, as long names have, takes two bytes.
    head = np.empty((len(part), 3), np.uint8)
    long = lengths > 127
    head[:, 0] = _VALUES[0]
    head[:, 1] = np.where(long, lengths & 127 | 128, lengths)
    head[:, 2] = lengths >> 7
    numbers = np.empty((len(part), _NUMBERS_BYTES), np.uint8)
    numbers[:, 0] = _TIME
    numbers[:, 1:9] = part.last_us.astype("<i8").view(np.uint8).reshape(-1, 8)
    numbers[:, 9] = _VALUE
    numbers[:, 10:] = part.value.astype("<f8").view(np.uint8).reshape(-1, 8)
    table = np.concatenate([head, devices[device], metrics[part.metric], numbers], axis=1)
    keep = np.concatenate(
        [
            np.ones((len(part), 2), np.bool_),
            long[:, None],
            (np.arange(devices.shape[1]) < devices_length[:, None])[device],
            (np.arange(metrics.shape[1]) < metrics_length[:, None])[part.metric],
            np.ones((len(part), _NUMBERS_BYTES), np.bool_),
        ],
        axis=1,
    )
    data: bytes = table[keep].tobytes()
    return data


def _texts(tag: bytes, texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Fields of up to 127 bytes, (texts, longest), and how long each is."""
    fields = [tag + bytes((len(data),)) + data for data in (text.encode() for text in texts)]
    lengths = np.fromiter(map(len, fields), np.int64, len(fields))
    width = int(lengths.max())
    flat = b"".join([field.ljust(width, b"\0") for field in fields])
    return np.frombuffer(flat, np.uint8).reshape(len(fields), width), lengths
