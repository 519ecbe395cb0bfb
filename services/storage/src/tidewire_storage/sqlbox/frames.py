"""Messages between storage and the process that runs a statement: a kind, a length, a payload, over one socket.

The process asks and storage answers, so that neither sends what the other has no room for: rows of a table come one
batch for each NEXT. Standard library alone: both sides import it.
"""

import struct
from enum import IntEnum

HEADER = struct.Struct("<BI")
MOST_BYTES = 16 << 20
"""No frame is larger; one that says so ends the process."""


class Kind(IntEnum):
    """What a frame is."""

    START = 1
    """To the process, JSON: the statement and the limits."""
    DATA = 2
    """To the process: the next bytes of the Arrow stream of a scan."""
    END = 3
    """To the process: the scan has no more."""
    OPEN = 4
    """To storage, JSON: a scan of a table, with the bounds that the statement has."""
    NEXT = 5
    """To storage: the scan's number, 4 bytes; answered by DATA or END."""
    RESULT = 6
    """To storage: the next bytes of the Arrow stream of the result."""
    DONE = 7
    """To storage, JSON: the result is complete."""
    ERROR = 8
    """To storage, JSON: kind and message; the process ends."""


def pack(kind: Kind, payload: bytes = b"") -> bytes:
    """A frame."""
    return HEADER.pack(kind, len(payload)) + payload
