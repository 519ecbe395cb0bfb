"""What is kept of a device's message, as small as it can be: a fleet has few distinct types, labels and gateways.

Called by `replica` for each device, where facts are kept.
"""

from google.protobuf.timestamp_pb2 import Timestamp

from tidewire.registry.v1.resources_pb2 import Device
from tidewire_kit.devices import DeviceFacts, Location

_MOST_TEXTS = 1 << 16


class FactsMaker:
    """Makes the facts of devices; texts that many of them share are held once."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def make(self, device_id: str, device: Device, ancestors: tuple[bytes, ...]) -> DeviceFacts:
        """The facts of a device."""
        if len(self._texts) > _MOST_TEXTS:
            self._texts.clear()  # serial numbers and the like: what is shared is soon here again
        share = self._texts.setdefault
        place = device.location if device.HasField("location") else None
        parent = device.parent.rpartition("/")[2]
        return DeviceFacts(
            device_id,
            share(device.type, device.type),
            {share(key, key): share(value, value) for key, value in device.labels.items()},
            share(parent, parent),
            Location(place.latitude, place.longitude) if place is not None else None,
            device.state,
            _unix_us(device.create_time),
            _unix_us(device.update_time),
            ancestors,
        )


def _unix_us(stamp: Timestamp) -> int:
    return stamp.seconds * 1_000_000 + stamp.nanos // 1000
