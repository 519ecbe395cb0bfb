"""Decides which rows of a batch are admitted, by columns: a frame with nothing wrong costs some ten NumPy calls.

Each check runs over the whole column first (a minimum, a maximum, one look-up); only when that fails are rows looked
at, and only then is there anything to explain. Checks in order, a row is refused for the first that it fails: metrics'
names, device, time, finite values, metrics of the device, quota of the device, quota of the tenant.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_ingestion.application import explain
from tidewire_ingestion.application.tenants import TenantState
from tidewire_ingestion.domain import (
    FIRST_ROWS,
    MAX_AHEAD_US,
    MAX_METRICS,
    MIN_TIME_US,
    Outcome,
    Reason,
    Refusal,
)
from tidewire_kit.identity import Caller
from tidewire_kit.ids import TenantId
from tidewire_kit.telemetry.admitted import Admitted, Origin, Source
from tidewire_kit.telemetry.batch import Batch, Frame
from tidewire_kit.telemetry.metric_set import MetricSet

Codes = NDArray[np.uint8]
"""Per row or device: 0, or the `Reason` to refuse it."""


@dataclass(slots=True)
class Admission:
    """The batch under decision, and what was decided."""

    tenant: TenantId
    state: TenantState
    batch: Batch
    source: Source
    slots: NDArray[np.intp]
    """(devices,): slot of each listed device; any when it is refused."""
    device_codes: Codes | None
    """(devices,); None: all are admitted."""
    device_names: list[str]
    now_us: int
    now: float
    """Seconds of the monotonic clock, for token buckets."""
    outcome: Outcome
    admitted: list[Admitted]


def device_codes(state: TenantState, caller: Caller, slots: NDArray[np.intp]) -> Codes | None:
    """Which of the devices in `slots` (-1: unknown) this caller may not publish for; None: it may for all."""
    table = state.view.devices
    codes: Codes | None = None
    if len(slots) == 1:
        slot = int(slots[0])
        fault = slot < 0 or not table.admitted[slot]
    else:
        fault = int(slots.min()) < 0 or not table.admitted[slots].all()
    if fault:
        codes = np.zeros(len(slots), np.uint8)
        codes[~table.admitted[slots]] = Reason.DEVICE_BLOCKED
        codes[slots < 0] = Reason.DEVICE_UNKNOWN
    if caller.kind == "device":
        own, ancestors = caller.device_uid, table.ancestors
        own_slot = table.slot_by_uid.get(own) if own is not None else None
        for number, slot in enumerate(slots.tolist()):
            if slot >= 0 and slot != own_slot and own not in ancestors.get(slot, ()):
                if codes is None:
                    codes = np.zeros(len(slots), np.uint8)
                codes[number] = (
                    Reason.NOT_YOUR_DEVICE
                )  # also of a blocked one: its state is none of the caller's business
    return codes


def admit(admission: Admission) -> None:
    """Fills `admitted` and `outcome`."""
    state = admission.state
    if state.batches.take(1, admission.now) == 0:
        delay = state.batches.delay(1)
        admission.outcome.retry_delay_seconds = delay
        for number, frame in enumerate(admission.batch.frames):
            codes = np.full(frame.rows, Reason.QUOTA_TENANT, np.uint8)
            _refuse(admission, number, frame, codes, detail="batches_per_second")
        return
    for number, frame in enumerate(admission.batch.frames):
        _admit_frame(admission, number, frame)


def _admit_frame(admission: Admission, number: int, frame: Frame) -> None:
    if len(frame.metrics) > MAX_METRICS:
        _refuse(admission, number, frame, np.full(frame.rows, Reason.TOO_MANY_METRICS, np.uint8))
        return
    metrics = admission.state.metric_set(frame.metrics)
    if not isinstance(metrics, MetricSet):
        # Not column by column: half of a device's message is not what its owner wants to find later.
        _refuse(admission, number, frame, np.full(frame.rows, Reason.BAD_METRIC, np.uint8), detail=metrics)
        return
    if frame.device_index is None:
        slots = admission.slots[:1] if frame.rows == 1 else np.full(frame.rows, admission.slots[0], np.intp)
    else:
        slots = admission.slots[frame.device_index]
    codes = _stateless_faults(admission, frame)
    codes = _limits(admission, frame, metrics, slots, codes)
    if codes is None:
        admission.outcome.accepted_readings += frame.readings
        times, values = frame.time_unix_us, frame.values
    else:
        _refuse(admission, number, frame, codes)
        kept = np.flatnonzero(codes == 0)
        if len(kept) == 0:
            return
        slots, times, values = slots[kept], frame.time_unix_us[kept], frame.values[:, kept]
        accepted = values.size if frame.complete else int(np.count_nonzero(~np.isnan(values)))
        admission.outcome.accepted_readings += accepted
    admission.admitted.append(
        Admitted(
            admission.tenant,
            admission.state.view.devices,
            metrics,
            [Origin(admission.source, number, len(slots))],
            slots,
            times,
            np.ascontiguousarray(values),
            frame.complete,
        )
    )


def _stateless_faults(admission: Admission, frame: Frame) -> Codes | None:
    """Faults that a row has whatever else was sent."""
    codes: Codes | None = None
    if admission.device_codes is not None:
        index = 0 if frame.device_index is None else frame.device_index
        codes = np.zeros(frame.rows, np.uint8)
        codes[:] = admission.device_codes[index]
        if not codes.any():
            codes = None
    times, latest = frame.time_unix_us, admission.now_us + MAX_AHEAD_US
    if frame.rows == 1:
        skewed = not MIN_TIME_US <= int(times[0]) <= latest
    else:
        skewed = int(times.min()) < MIN_TIME_US or int(times.max()) > latest
    if skewed:
        codes = _mark(frame, codes, (times < MIN_TIME_US) | (times > latest), Reason.CLOCK_SKEW)
    if not frame.complete:
        infinite = np.isinf(frame.values)
        if infinite.any():
            codes = _mark(frame, codes, infinite.any(axis=0), Reason.NOT_FINITE)
    return codes


def _limits(
    admission: Admission, frame: Frame, metrics: MetricSet, slots: NDArray[np.intp], codes: Codes | None
) -> Codes | None:
    """Faults that depend on what was sent before. Rows refused already count for nothing."""
    state, outcome = admission.state, admission.outcome
    rows = None if codes is None else np.flatnonzero(codes == 0)  # None: all
    if rows is not None and len(rows) == 0:
        return codes

    capacity = len(state.view.devices.partition)
    chosen = slots if rows is None else slots[rows]
    over = state.device_metrics.add(chosen, metrics, capacity, state.metrics_per_device)
    if over is not None:
        codes, rows = _refuse_some(frame, codes, rows, over, Reason.TOO_MANY_METRICS)

    if state.device_readings.limited and (rows is None or len(rows)):
        chosen = slots if rows is None else slots[rows]
        over, delay = state.device_readings.take(chosen, _row_readings(frame, rows), admission.now)
        if over is not None:
            outcome.retry_delay_seconds = max(outcome.retry_delay_seconds, delay)
            codes, rows = _refuse_some(frame, codes, rows, over, Reason.QUOTA_DEVICE)

    if rows is None or len(rows):
        needed = frame.readings if rows is None else int(_row_readings(frame, rows).sum())
        granted = state.readings.take(needed, admission.now)
        if granted < needed:
            running = _row_readings(frame, rows).cumsum()
            over = running > granted
            kept = int(running[~over].max(initial=0))
            state.readings.put_back(granted - kept)
            outcome.retry_delay_seconds = max(
                outcome.retry_delay_seconds, state.readings.delay(needed - kept)
            )
            codes, rows = _refuse_some(frame, codes, rows, over, Reason.QUOTA_TENANT)
    return codes


def _mark(frame: Frame, codes: Codes | None, fault: NDArray[np.bool_], reason: Reason) -> Codes:
    """Sets `reason` where there is a fault and none was found before."""
    if codes is None:
        codes = np.zeros(frame.rows, np.uint8)
    codes[fault & (codes == 0)] = reason
    return codes


def _refuse_some(
    frame: Frame,
    codes: Codes | None,
    rows: NDArray[np.intp] | None,
    over: NDArray[np.bool_],
    reason: Reason,
) -> tuple[Codes, NDArray[np.intp]]:
    """Refuses those of `rows` that `over` marks; returns the codes and the rows that are left."""
    if codes is None:
        codes = np.zeros(frame.rows, np.uint8)
    if rows is None:
        rows = np.arange(frame.rows)
    codes[rows[over]] = reason
    return codes, rows[~over]


def _row_readings(frame: Frame, rows: NDArray[np.intp] | None) -> NDArray[np.int64]:
    """(rows,): cells that are not NaN."""
    if frame.complete:
        return np.full(frame.rows if rows is None else len(rows), len(frame.metrics), np.int64)
    counts: NDArray[np.int64] = np.count_nonzero(~np.isnan(frame.values), axis=0).astype(np.int64)
    return counts if rows is None else counts[rows]


def _refuse(admission: Admission, number: int, frame: Frame, codes: Codes, *, detail: str = "") -> None:
    """Groups the rows that have a code by it, with counts, first rows and an explanation."""
    outcome = admission.outcome
    readings = _row_readings(frame, None)
    for code in np.unique(codes[codes > 0]).tolist():
        rows = np.flatnonzero(codes == code)
        refused = int(readings[rows].sum())
        reason = Reason(code)
        message = explain.refusal(
            reason,
            number,
            frame,
            rows,
            admission.device_names,
            detail=detail,
            metric_limit=admission.state.metrics_per_device,
        )
        first_rows = tuple(rows[:FIRST_ROWS].tolist())
        outcome.refusals.append(Refusal(reason, number, len(rows), refused, first_rows, message))
        outcome.refused_readings += refused
