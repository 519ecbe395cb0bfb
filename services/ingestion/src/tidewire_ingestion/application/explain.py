"""Says why rows were refused, in words that name the field and the remedy. Runs only for refused rows."""

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from tidewire_ingestion.domain import MAX_METRICS, Reason
from tidewire_kit.telemetry.batch import Frame

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES = 3
_SHOWN_CHARACTERS = 80


def refusal(
    reason: Reason,
    number: int,
    frame: Frame,
    rows: NDArray[np.intp],
    device_names: list[str],
    *,
    detail: str,
    metric_limit: int,
) -> str:
    """The message for `rows` of frame `number`, which were refused for `reason`."""
    field = f"frames[{number}]"
    first = int(rows[0])
    names = _devices(frame, rows, device_names)
    match reason:
        case Reason.DEVICE_UNKNOWN:
            return f"devices: {names}: no such device in this tenant; create it first, or correct the id"
        case Reason.DEVICE_BLOCKED:
            return f"devices: {names}: blocked, quarantined or retired; unblock it before it publishes"
        case Reason.NOT_YOUR_DEVICE:
            return (
                f"devices: {names}: neither the caller nor below it; publish with that device's own credential, "
                "or make the caller its gateway"
            )
        case Reason.QUOTA_TENANT:
            limit = detail or "readings_per_second"
            return f"{limit} of the tenant is used up; send these rows again after the delay, under a new batch_id"
        case Reason.QUOTA_DEVICE:
            return (
                f"device_readings_per_second is used up by {names}; send these rows again after the delay, "
                "under a new batch_id"
            )
        case Reason.CLOCK_SKEW:
            return (
                f"{field}.time_unix_us: {_time(int(frame.time_unix_us[first]))} in row {first}; send microseconds "
                "since 1970-01-01T00:00:00Z, from the year 2000 to 10 minutes ahead, and set the device's clock"
            )
        case Reason.NOT_FINITE:
            metric = frame.metrics[int(np.isinf(frame.values[:, first]).argmax())]
            return f"{field}.values: infinite in row {first}, metric {metric!r}; send NaN where there is no reading"
        case Reason.BAD_METRIC:
            shown = detail if len(detail) <= _SHOWN_CHARACTERS else detail[:_SHOWN_CHARACTERS] + "…"
            return f"{field}.metrics: {shown} is not a metric name; use [a-z][a-z0-9_]{{0,62}}"
        case Reason.TOO_MANY_METRICS:
            if len(frame.metrics) > MAX_METRICS:
                return f"{field}.metrics: {len(frame.metrics)} columns; a device has at most {MAX_METRICS} metrics"
            return (
                f"{field}.metrics: {names} would have more than {metric_limit} metrics; "
                "send fewer, or use several devices"
            )
        case Reason.BAD_EVENT | Reason.BODY_TOO_LARGE:
            raise ValueError("rows are not refused for that")


def _devices(frame: Frame, rows: NDArray[np.intp], names: list[str]) -> str:
    """The first few devices of `rows`, and how many more there are."""
    index = [0] if frame.device_index is None else np.unique(frame.device_index[rows]).tolist()
    shown = [repr(names[number][:_SHOWN_CHARACTERS]) for number in index[:_NAMES]]
    more = len(index) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _time(time_unix_us: int) -> str:
    try:
        return (_EPOCH + timedelta(microseconds=time_unix_us)).isoformat()
    except OverflowError:
        return f"{time_unix_us} µs"
