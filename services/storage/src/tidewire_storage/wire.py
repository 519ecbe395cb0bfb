"""Protobuf's bytes made from columns: an object for each of a million numbers would take most of a call.

Used by `latest_wire` and `report_wire`, whose tests have the generated code read what they write.
"""

import numpy as np
from numpy.typing import NDArray


class EncodedResponse:
    """A response that is serialised already."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:
        """The bytes."""
        return self._data


def message_field(field: int, data: bytes) -> bytes:
    """A field that is a message, of its bytes; there even when the message is empty."""
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def packed_doubles(field: int, *values: NDArray[np.float64]) -> bytes:
    """A packed `repeated double`; values (n,), one array after the other."""
    return _packed(field, b"".join([column.astype("<f8", copy=False).tobytes() for column in values]))


def packed_fixed64(field: int, values: NDArray[np.int64]) -> bytes:
    """A packed `repeated sfixed64`; values (n,)."""
    return _packed(field, values.astype("<i8", copy=False).tobytes())


def packed_varints(field: int, values: NDArray[np.int64]) -> bytes:
    """A packed `repeated uint32` or `int64`; values (n,), none negative."""
    if not len(values):
        return b""
    width = max(1, -(-int(values.max()).bit_length() // 7))
    if width == 1:
        return _packed(field, values.astype(np.uint8).tobytes())
    sevens = values[:, None] >> np.arange(0, 7 * width, 7)
    follows = sevens >> 7 > 0
    table = (sevens & 127 | follows * 128).astype(np.uint8)
    keep = np.ones(table.shape, np.bool_)
    keep[:, 1:] = follows[:, :-1]
    return _packed(field, table[keep].tobytes())


def _packed(field: int, data: bytes) -> bytes:
    return message_field(field, data) if data else b""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
