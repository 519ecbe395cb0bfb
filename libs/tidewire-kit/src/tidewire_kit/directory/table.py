"""The devices of one tenant as columns, so that a batch of any size is checked with a few NumPy operations.

Written by `Directory` only; read by ingestion (id → slot → uid, partition, admitted) and storage (uid → name, labels).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.devices import DeviceFacts
from tidewire_kit.ids import TenantId, partition_of

_FIRST_CAPACITY = 16
_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


class DeviceTable:
    """Devices by slot. A slot belongs to one uid for ever: neither deletion nor a new device of the name reuses it.

    The arrays have room beyond `len(table)`: only slots that `slot_of` or `slot_by_uid` gave are meaningful. When the
    table grows they are replaced, so read them from the table for each batch and do not keep them.
    """

    __slots__ = (
        "_partitions",
        "_tenant",
        "admitted",
        "ancestors",
        "created_us",
        "facts",
        "names",
        "partition",
        "revisions",
        "slot_by_uid",
        "slot_of",
        "uids",
        "version",
    )

    def __init__(self, tenant: TenantId, partitions: int) -> None:
        self._tenant = tenant
        self._partitions = partitions
        self.slot_of: dict[str, int] = {}
        """Device id → slot, of devices that exist."""
        self.slot_by_uid: dict[bytes, int] = {}
        """Device uid → slot, of devices that exist."""
        self.names: list[str] = []
        """Device id by slot, also of deleted devices."""
        self.uids: NDArray[np.uint8] = np.zeros((_FIRST_CAPACITY, 16), np.uint8)
        """uint8 (capacity, 16)."""
        self.partition: NDArray[np.uint16] = np.zeros(_FIRST_CAPACITY, np.uint16)
        """uint16 (capacity,): the partition that `ids.partition_of` gives."""
        self.admitted: NDArray[np.bool_] = np.zeros(_FIRST_CAPACITY, np.bool_)
        """bool (capacity,): the device is ACTIVE or ENROLLED; false for every other state and when deleted."""
        self.revisions: NDArray[np.int64] = np.zeros(_FIRST_CAPACITY, np.int64)
        """int64 (capacity,): revision of the state held."""
        self.created_us: NDArray[np.int64] = np.zeros(_FIRST_CAPACITY, np.int64)
        """int64 (capacity,): creation, unix µs."""
        self.ancestors: dict[int, tuple[bytes, ...]] = {}
        """Slot → uids of the gateways and sites that may publish for it, nearest first; absent when there are none."""
        self.facts: list[DeviceFacts | None] = []
        """Type, labels and so on by slot; None for deleted devices, and for all where the replica keeps none."""
        self.version = 0
        """Rises with every change, so that what was worked out from the table may be kept until then."""

    def __len__(self) -> int:
        """Slots given out, those of deleted devices included."""
        return len(self.names)

    def put(
        self,
        device_id: str,
        device_uid: bytes,
        *,
        admitted: bool,
        revision: int,
        created_us: int,
        ancestors: tuple[bytes, ...],
        facts: DeviceFacts | None = None,
    ) -> bool:
        """Notes a device's state, unless a newer one is held. Returns whether it took something away.

        Of two live devices of one id (the tombstone of the older is still to come) the id means the one created last.
        """
        slot = self.slot_by_uid.get(device_uid)
        if slot is None:
            slot = self._new_slot(device_id, device_uid)
            restricted = False
        elif revision < self.revisions[slot]:
            return False
        else:
            restricted = (bool(self.admitted[slot]) and not admitted) or ancestors != self.ancestors.get(
                slot, ()
            )
        self.admitted[slot] = admitted
        self.revisions[slot] = revision
        self.created_us[slot] = created_us
        self.facts[slot] = facts
        self.version += 1
        if ancestors:
            self.ancestors[slot] = ancestors
        else:
            self.ancestors.pop(slot, None)
        holder = self.slot_of.get(device_id)
        if holder is None or holder == slot or self.created_us[holder] <= created_us:
            self.slot_of[device_id] = slot
        return restricted

    def remove(self, device_uid: bytes) -> bool:
        """Forgets a deleted device; its slot stays, not admitted. Returns whether it was there."""
        slot = self.slot_by_uid.pop(device_uid, None)
        if slot is None:
            return False
        self.admitted[slot] = False
        self.ancestors.pop(slot, None)
        self.facts[slot] = None
        self.version += 1
        name = self.names[slot]
        if self.slot_of.get(name) == slot:
            del self.slot_of[name]
        return True

    def labels_of(self, slot: int) -> Mapping[str, str]:
        """A device's labels; none of a deleted device, and none where the replica keeps no facts."""
        facts = self.facts[slot]
        return _NO_LABELS if facts is None else facts.labels

    def _new_slot(self, device_id: str, device_uid: bytes) -> int:
        slot = len(self.names)
        if slot == len(self.admitted):
            self._grow()
        self.names.append(device_id)
        self.facts.append(None)
        self.slot_by_uid[device_uid] = slot
        self.uids[slot] = np.frombuffer(device_uid, np.uint8)
        self.partition[slot] = partition_of(self._tenant, device_uid, self._partitions)
        return slot

    def _grow(self) -> None:
        self.uids = np.concatenate([self.uids, np.zeros_like(self.uids)])
        self.partition = np.concatenate([self.partition, np.zeros_like(self.partition)])
        self.admitted = np.concatenate([self.admitted, np.zeros_like(self.admitted)])
        self.revisions = np.concatenate([self.revisions, np.zeros_like(self.revisions)])
        self.created_us = np.concatenate([self.created_us, np.zeros_like(self.created_us)])
