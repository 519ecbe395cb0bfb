"""Turns what the client library hands out into records of the port. Used by the consumer and by `read`."""

from typing import Any

from tidewire_kit.log.port import NO_HEADERS, LogRecord


def to_record(topic: str, message: Any) -> LogRecord:
    """`topic` is the port's name, without the prefix. The value is a copy of its own: it may be held for ever."""
    headers = message.headers()
    return LogRecord(
        topic,
        message.partition(),
        message.offset(),
        message.timestamp()[1] * 1000,
        message.key() or b"",
        message.value() or b"",
        NO_HEADERS if not headers else {name: content or b"" for name, content in headers},
    )
