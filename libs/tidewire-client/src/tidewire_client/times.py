"""Moments as the SDK takes them, and as the wire carries them: microseconds since 1970-01-01T00:00:00Z.

Called wherever a caller gives a time. A `datetime` without a zone is refused, because guessing one is how an archive
ends up an hour off.
"""

import operator
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tidewire_client.errors import InvalidArgument

if TYPE_CHECKING:
    import numpy as np

type Moment = datetime | np.datetime64 | int
"""An aware datetime, a `datetime64` (which is UTC by definition), or microseconds since 1970 as an int."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def now_us() -> int:
    """The wall clock, in microseconds since 1970."""
    return time.time_ns() // 1000


def to_unix_us(moment: Moment, field: str = "time") -> int:
    """Microseconds since 1970 of a moment. Raises InvalidArgument, naming `field`, for a naive datetime."""
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise InvalidArgument(
                f"{field} {moment.isoformat()} has no time zone; give one, such as "
                f"{field}.replace(tzinfo=datetime.UTC)",
                field=field,
                reason="NAIVE_TIME",
            )
        return (moment - _EPOCH) // _MICROSECOND
    if type(moment).__name__ == "datetime64":
        return int(moment.astype("datetime64[us]").astype("int64"))  # type: ignore[union-attr]
    try:
        if isinstance(moment, bool):
            raise TypeError
        return operator.index(moment)  # type: ignore[arg-type]  # NumPy's integers too
    except TypeError:
        raise InvalidArgument(
            f"{field} must be an aware datetime, a datetime64 or microseconds since 1970 as an int, "
            f"not {type(moment).__name__}",
            field=field,
        ) from None


def to_datetime(time_unix_us: int) -> datetime:
    """The aware UTC datetime of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=time_unix_us)


def to_timestamp(moment: Moment, field: str = "time") -> Timestamp:
    """The protobuf timestamp of a moment."""
    micros = to_unix_us(moment, field)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def timestamp_us(timestamp: Timestamp) -> int:
    """Microseconds since 1970 of a protobuf timestamp."""
    return timestamp.seconds * 1_000_000 + timestamp.nanos // 1000


def to_duration(span: timedelta | float, field: str = "duration") -> Duration:
    """The protobuf duration of a timedelta or of seconds. Raises InvalidArgument when it is not positive."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else float(span)
    if seconds <= 0:
        raise InvalidArgument(f"{field} must be more than 0 seconds", field=field)
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)
