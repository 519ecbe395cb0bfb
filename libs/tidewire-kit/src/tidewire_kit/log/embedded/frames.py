"""How a record lies in a segment file: pure encoding and checking, no files. Used by the writer, readers and recovery.

A frame is a head of 48 bytes, then value, headers and key, padded to 8 bytes. The value comes first so that it is
aligned: a reader lays arrays over it without a copy.

    head check u32 | frame bytes u32 | body checksum u64 | offset u64 | appended_at_us i64
    partition u32 | key bytes u32 | headers bytes u32 | value bytes u32

The body checksum is xxh3_64. The head check is 32 bits of xxh3_64 over the rest of the head (the body checksum too) and
the frame's position in the log: a reader that skips a frame trusts its head, and a frame that lies in a wrong place
(left over from before a cut) is none. xxh3_64 instead of crc32c because it is 64 bits wide at over 10 GB/s through a
wheel that the platform needs anyway, and the standard library has no crc32c.
"""

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

import xxhash

from tidewire_kit.log.port import NO_HEADERS, Buffer, LogRecord, Outgoing

_HEAD = struct.Struct("<IIQQqIIII")
HEAD_BYTES: Final = _HEAD.size
_CHECKED = struct.Struct("<IQQqIIIIQ")  # the head without its check, then the position
_CHECK = struct.Struct("<I")
_CHECK_MASK = 0xFFFF_FFFF
_HEADER = struct.Struct("<HI")
_PADDING = tuple(bytes(n) for n in range(8))
_JOIN_BELOW = 4096
"""Small frames are joined: one buffer costs less than five in a vectored write."""


class FrameHead(NamedTuple):
    """The head of a frame as unpacked."""

    check: int
    frame_bytes: int
    body_checksum: int
    offset: int
    appended_at_us: int
    partition: int
    key_bytes: int
    headers_bytes: int
    value_bytes: int


class PreparedFrame:
    """A record whose body is hashed already, so that little is left to do while the topic is locked."""

    __slots__ = (
        "_body",
        "_body_checksum",
        "frame_bytes",
        "headers_bytes",
        "key_bytes",
        "partition",
        "value_bytes",
    )

    def __init__(self, record: Outgoing) -> None:
        headers = encode_headers(record.headers)
        body: list[Buffer] = [*record.value, headers, record.key]
        digest = xxhash.xxh3_64()
        value_bytes = 0
        for piece in record.value:
            value_bytes += piece.nbytes if isinstance(piece, memoryview) else len(piece)
            digest.update(piece)
        digest.update(headers)
        digest.update(record.key)
        self.partition = record.partition
        self.key_bytes = len(record.key)
        self.headers_bytes = len(headers)
        self.value_bytes = value_bytes
        unpadded = HEAD_BYTES + value_bytes + self.headers_bytes + self.key_bytes
        self.frame_bytes = (unpadded + 7) & ~7
        body.append(_PADDING[self.frame_bytes - unpadded])
        self._body = body
        self._body_checksum = digest.intdigest()

    def sealed(self, position: int, offset: int, appended_at_us: int) -> list[Buffer]:
        """The frame's bytes in pieces, for this place in the log. May be called again for another place."""
        checked = _CHECKED.pack(
            self.frame_bytes,
            self._body_checksum,
            offset,
            appended_at_us,
            self.partition,
            self.key_bytes,
            self.headers_bytes,
            self.value_bytes,
            position,
        )
        check = xxhash.xxh3_64_intdigest(checked) & _CHECK_MASK
        head = _CHECK.pack(check) + checked[:-8]
        if self.frame_bytes <= _JOIN_BELOW:
            return [b"".join((head, *self._body))]
        return [head, *(piece for piece in self._body if len(piece))]


def head_at(buffer: memoryview, at: int, position: int) -> FrameHead | None:
    """The head at byte `at` of `buffer`, which is `position` in the log; None when there is no whole frame there."""
    if at + HEAD_BYTES > len(buffer):
        return None
    head = FrameHead._make(_HEAD.unpack_from(buffer, at))
    if xxhash.xxh3_64_intdigest(_CHECKED.pack(*head[1:], position)) & _CHECK_MASK != head.check:
        return None
    unpadded = HEAD_BYTES + head.key_bytes + head.headers_bytes + head.value_bytes
    if head.frame_bytes != (unpadded + 7) & ~7 or at + head.frame_bytes > len(buffer):
        return None
    return head


def is_intact(buffer: memoryview, at: int, head: FrameHead) -> bool:
    """Whether the body of the frame at byte `at` of `buffer` has its right checksum."""
    start = at + HEAD_BYTES
    body = buffer[start : start + head.value_bytes + head.headers_bytes + head.key_bytes]
    return bool(xxhash.xxh3_64_intdigest(body) == head.body_checksum)


def record_at(topic: str, buffer: memoryview, at: int, head: FrameHead) -> LogRecord:
    """The record of an intact frame; its value is a view of `buffer`."""
    value_end = at + HEAD_BYTES + head.value_bytes
    headers_end = value_end + head.headers_bytes
    return LogRecord(
        topic,
        head.partition,
        head.offset,
        head.appended_at_us,
        bytes(buffer[headers_end : headers_end + head.key_bytes]),
        buffer[at + HEAD_BYTES : value_end],
        decode_headers(bytes(buffer[value_end:headers_end])) if head.headers_bytes else NO_HEADERS,
    )


def encode_headers(headers: Mapping[str, bytes]) -> bytes:
    """Name length u16, value length u32, name in UTF-8, value; one after the other."""
    if not headers:
        return b""
    parts: list[bytes] = []
    for name, value in headers.items():
        raw = name.encode()
        parts += (_HEADER.pack(len(raw), len(value)), raw, value)
    return b"".join(parts)


def decode_headers(raw: bytes) -> dict[str, bytes]:
    """The reverse of `encode_headers`."""
    headers: dict[str, bytes] = {}
    at = 0
    while at < len(raw):
        name_bytes, value_bytes = _HEADER.unpack_from(raw, at)
        at += _HEADER.size
        name = raw[at : at + name_bytes].decode()
        at += name_bytes
        headers[name] = raw[at : at + value_bytes]
        at += value_bytes
    return headers
