"""Says where a protobuf message is broken, so that an error can name the field. Only runs once parsing has failed."""

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_ITEM_BYTES = {
    FieldDescriptor.TYPE_FIXED32: 4,
    FieldDescriptor.TYPE_SFIXED64: 8,
    FieldDescriptor.TYPE_FIXED64: 8,
    FieldDescriptor.TYPE_DOUBLE: 8,
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 20_000
"""After so many the search is given up: of millions it would keep everybody else waiting for seconds."""


class _FaultError(Exception):
    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


def locate(raw: bytes, descriptor: Descriptor) -> tuple[str, str]:
    """Returns (path of the first broken field such as `frames[0].values`, what is wrong with it).

    The path is `message` when the fault belongs to no field.
    """
    try:
        _walk(memoryview(raw), 0, descriptor, "", iter(range(_MOST_FIELDS)))
    except _FaultError as fault:
        return fault.path or "message", fault.why
    return "message", f"is not valid protobuf ({len(raw)} bytes)"


def _walk(data: memoryview, base: int, descriptor: Descriptor, path: str, budget: Iterator[int]) -> None:
    seen: dict[int, int] = {}
    at = 0
    while at < len(data):
        if next(budget, None) is None:
            raise _FaultError("", f"is not valid protobuf, somewhere behind byte {base + at}")
        start = base + at
        tag, at = _varint(data, at, path, start)
        number, wire_type = tag >> 3, tag & 7
        field = descriptor.fields_by_number.get(number)
        here = path
        if field is not None:
            here = f"{path}.{field.name}" if path else field.name
            if field.is_repeated and field.type in (field.TYPE_MESSAGE, field.TYPE_STRING):
                here += f"[{seen.get(number, 0)}]"
            seen[number] = seen.get(number, 0) + 1
        if number == 0 or wire_type not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
            raise _FaultError(here, f"is not valid protobuf: bad tag at byte {start}")
        if wire_type == _VARINT:
            _, at = _varint(data, at, here, start)
            continue
        if wire_type == _BYTES:
            length, at = _varint(data, at, here, start)
        else:
            length = 8 if wire_type == _FIXED64 else 4
        if at + length > len(data):
            raise _FaultError(
                here, f"is truncated: {length} bytes announced at byte {start}, {len(data) - at} present"
            )
        if field is not None and wire_type == _BYTES:
            _check(data[at : at + length], base + at, field, here, budget)
        at += length


def _check(body: memoryview, base: int, field: FieldDescriptor, path: str, budget: Iterator[int]) -> None:
    if field.type == field.TYPE_MESSAGE:
        assert field.message_type is not None
        _walk(body, base, field.message_type, path, budget)
    elif field.type == field.TYPE_STRING:
        try:
            bytes(body).decode()
        except UnicodeDecodeError:
            raise _FaultError(path, f"is not UTF-8 (at byte {base})") from None
    elif field.is_repeated and len(body) % _ITEM_BYTES.get(field.type, 1):
        raise _FaultError(
            path, f"is a packed column of {len(body)} bytes, not a multiple of {_ITEM_BYTES[field.type]}"
        )


def _varint(data: memoryview, at: int, path: str, start: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _FaultError(path, f"is truncated in the number at byte {start}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _FaultError(path, f"is not valid protobuf: a number of more than 10 bytes at byte {start}")
