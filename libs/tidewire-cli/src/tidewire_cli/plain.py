"""API messages as plain values for JSON and YAML: the proto's own field names, numbers as numbers, times as text."""

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tidewire_cli.looks import utc_text

type Plain = bool | int | float | str | list[Plain] | dict[str, Plain] | None


def to_plain(message: Message) -> dict[str, Plain]:
    """A message as a dictionary without unset messages and empty strings; numbers, lists, maps are always there."""
    plain: dict[str, Plain] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            plain[field.name] = {str(key): value[key] for key in sorted(value)}
        elif field.is_repeated:
            plain[field.name] = [_one(field, item) for item in value]
        elif field.message_type is not None:
            if message.HasField(field.name):
                plain[field.name] = _one(field, value)
        elif value != "":
            plain[field.name] = _one(field, value)
    return plain


def _one(field: object, value: object) -> Plain:
    if isinstance(value, Timestamp):
        return utc_text(value.seconds * 1_000_000 + value.nanos // 1000)
    if isinstance(value, Duration):
        return f"{timedelta(seconds=value.seconds).total_seconds() + value.nanos / 1e9:g}s"
    if isinstance(value, Message):
        return to_plain(value)
    enum = getattr(field, "enum_type", None)
    if enum is not None:
        return str(enum.values_by_number[value].name) if value in enum.values_by_number else int(str(value))
    if isinstance(value, bytes):
        return value.hex()
    assert isinstance(value, bool | int | float | str)
    return value
