"""What passes from admission to the producer: the rows of frames that are to become durable."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.directory.table import DeviceTable
from tidewire_kit.ids import TenantId
from tidewire_kit.telemetry.metric_set import MetricSet

_SEGMENT_BYTES = 64


@dataclass(slots=True)
class Source:
    """The batch that frames came from."""

    publisher_uid: bytes
    """16 bytes."""
    batch_id: bytes
    """16 bytes."""
    sequence: int
    received_us: int


@dataclass(slots=True)
class Origin:
    """Where a run of rows came from: a frame of a batch."""

    source: Source
    frame: int
    """Number of the frame in its batch."""
    rows: int
    """Admitted ones; at least 1."""


@dataclass(slots=True)
class Admitted:
    """Admitted rows of one or many frames of one tenant and metric set. Nobody changes the arrays afterwards."""

    tenant: TenantId
    devices: DeviceTable
    metrics: MetricSet
    origins: list[Origin]
    """At least one. They cover the rows in order, without gap; no frame is named twice."""
    slots: NDArray[np.intp]
    """(rows,): row → slot in `devices`."""
    time_unix_us: NDArray[np.int64]
    """(rows,)."""
    values: NDArray[np.float64]
    """(metrics, rows), C-contiguous."""
    complete: bool
    """No cell is NaN."""

    @property
    def bytes(self) -> int:
        """About what the rows take in a record."""
        return len(self.slots) * (8 * len(self.values) + 12) + _SEGMENT_BYTES * len(self.origins)
