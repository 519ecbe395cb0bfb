"""Values of devices that the registry makes and every replica of its topic holds: states, places, facts.

Used by the registry's domain, by `directory`, and by `filter`, which asks conditions of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from tidewire_kit.errors import InvalidArgument


class DeviceState(IntEnum):
    """State of a device; the numbers are those of the API. ENROLLED and ACTIVE are admitted: an enrolled device has no
    credential, so that only a gateway or a user can publish for it."""

    ENROLLED = 1
    ACTIVE = 2
    BLOCKED = 3
    QUARANTINED = 4
    RETIRED = 5
    ERASED = 6


ADMITTED = frozenset({DeviceState.ENROLLED, DeviceState.ACTIVE})


@dataclass(frozen=True, slots=True)
class Location:
    """A place in degrees, WGS 84."""

    latitude: float
    longitude: float

    def check(self, where: str) -> None:
        """Refuses what is not on the globe."""
        if not (math.isfinite(self.latitude) and -90 <= self.latitude <= 90):
            raise InvalidArgument(f"{where}.latitude", f"is {self.latitude}; give -90 to 90 degrees")
        if not (math.isfinite(self.longitude) and -180 <= self.longitude <= 180):
            raise InvalidArgument(f"{where}.longitude", f"is {self.longitude}; give -180 to 180 degrees")


@dataclass(slots=True)
class DeviceFacts:
    """What a replica holds of a device besides its id and keys. Treated as a value; replaced, never changed.

    Not frozen, since building a frozen one takes three times as long, and a replay builds them by the hundred thousand.
    """

    id: str
    type: str
    labels: Mapping[str, str]
    parent_id: str
    """Device id of the parent in the same tenant; empty: none."""
    location: Location | None
    state: int
    """A `DeviceState`, or what a newer registry has added."""
    created_us: int
    """Unix µs."""
    updated_us: int
    """Unix µs."""
    ancestors: tuple[bytes, ...]
    """Uids of parent, its parent and so on."""
