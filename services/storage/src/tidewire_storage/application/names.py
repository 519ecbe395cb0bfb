"""From what people say of devices (ids, filters, labels) to slots and uids, by the replica of the registry.

A tenant's own devices only: the callers have checked the tenant, and a device of another tenant does not exist here.
"""

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.directory import DeviceTable, Directory, TenantView
from tidewire_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from tidewire_kit.filter import Condition, parse
from tidewire_kit.filter.evaluation import predicate_of
from tidewire_kit.ids import TenantId, Uid, device_name

_INLINE_DEVICES = 2_000
"""So few are sorted and asked at once; more of them in a thread, so that other calls go on."""
_MOST_KEPT = 16


@dataclass(frozen=True, slots=True)
class Selection:
    """Devices by id, each once, and where they are in the tenant's table."""

    ids: Sequence[str]
    """Rising."""
    slots: NDArray[np.int64]
    table: DeviceTable

    def __len__(self) -> int:
        """Devices."""
        return len(self.ids)

    def starting_at(self, device_id: str) -> "Selection":
        """Those from a device id on."""
        first = bisect_left(self.ids, device_id)
        return self.slice(first, len(self)) if first else self

    def slice(self, first: int, last: int) -> "Selection":
        """Devices [first, last)."""
        return Selection(self.ids[first:last], self.slots[first:last], self.table)

    def uids(self) -> list[bytes]:
        """Uids, in the order of ids."""
        flat = self.table.uids[self.slots].tobytes()
        return [flat[first : first + 16] for first in range(0, len(flat), 16)]

    def by_partition(self) -> list[tuple[int, NDArray[np.int64]]]:
        """(partition, numbers of its devices in this selection), by partition."""
        partitions = self.table.partition[self.slots]
        return [(int(number), np.flatnonzero(partitions == number)) for number in np.unique(partitions)]

    def label_values(self, key: str) -> tuple[list[str], NDArray[np.int32]]:
        """The values of a label, rising, and (devices,) which of them each device has; without the label: ""."""
        values = [self.table.labels_of(slot).get(key, "") for slot in self.slots.tolist()]
        distinct = sorted(set(values))
        number = {value: place for place, value in enumerate(distinct)}
        return distinct, np.fromiter((number[value] for value in values), np.int32, len(values))


class Names:
    """Looks up devices."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._kept: OrderedDict[tuple[TenantId, str], tuple[int, Selection]] = OrderedDict()
        """By tenant and filter; the version of the table it belongs to."""

    def tenant(self, tenant: TenantId) -> TenantView:
        """The tenant; FailedPrecondition when it is blocked or being deleted, which ends its tokens too."""
        view = self._directory.tenant(tenant)
        if view is None or not view.active:
            raise FailedPrecondition("the tenant is blocked or deleted", reason="TENANT_BLOCKED")
        return view

    def tenant_id(self, tenant: TenantId) -> str | None:
        """The tenant's name; None when it is deleted."""
        view = self._directory.tenant(tenant)
        return view.id if view is not None and view.id and not view.deleted else None

    def device(self, tenant: TenantId, device_id: str) -> tuple[bytes, int]:
        """(uid, partition) of a device; NotFound."""
        view = self.tenant(tenant)
        slot = view.devices.slot_of.get(device_id)
        if slot is None:
            raise NotFound(device_name(view.id, device_id))
        return view.devices.uids[slot].tobytes(), int(view.devices.partition[slot])

    async def select(
        self, tenant: TenantId, device_ids: Sequence[str] = (), filter_text: str = ""
    ) -> Selection:
        """The devices of these ids, or those that a filter admits, or all.

        NotFound for an unknown id; InvalidArgument (FILTER_INVALID) for a filter that is wrong or given beside ids.
        """
        view = self.tenant(tenant)
        if not device_ids:
            return await self._admitted(view, filter_text.strip())
        if filter_text.strip():
            raise InvalidArgument(
                "filter",
                'goes without devices: leave one of them out, or name them in the filter as name = "ID" OR name = "ID"',
                reason="FILTER_INVALID",
            )
        ids = sorted(set(device_ids))
        slots = [view.devices.slot_of.get(device_id, -1) for device_id in ids]
        if -1 in slots:
            raise NotFound(device_name(view.id, ids[slots.index(-1)]))
        return Selection(ids, np.array(slots, np.int64), view.devices)

    async def _admitted(self, view: TenantView, filter_text: str) -> Selection:
        """Kept until a device changes, since pages and dashboards ask the same again and again."""
        condition = parse(filter_text, view.id)
        key, table = (view.uid, filter_text), view.devices
        version, held = self._kept.get(key, (-1, None))
        if held is not None and version == table.version and held.table is table:
            self._kept.move_to_end(key)
            return held
        version, there = table.version, dict(table.slot_of)
        if len(there) <= _INLINE_DEVICES:
            found = _select(table, there, condition)
        else:
            found = await asyncio.to_thread(_select, table, there, condition)
        self._kept[key] = version, found
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return found


def device_names(directory: Directory) -> Callable[[TenantId, Sequence[bytes]], list[str]]:
    """Tells devices' ids by their uids; "" of those that are not known any more."""

    def of(tenant: TenantId, uids: Sequence[bytes]) -> list[str]:
        view = directory.tenant(tenant)
        if view is None:
            return [""] * len(uids)
        slots = (view.devices.slot_by_uid.get(uid) for uid in uids)
        return ["" if slot is None else view.devices.names[slot] for slot in slots]

    return of


def _select(table: DeviceTable, there: Mapping[str, int], condition: Condition | None) -> Selection:
    """In a thread of its own perhaps: a device that changes meanwhile counts as it was or as it is."""
    if condition is None:
        ids = sorted(there)
    else:

        def uid_of(device_id: str) -> Uid | None:
            slot = there.get(device_id)
            return None if slot is None else Uid(table.uids[slot].tobytes())

        test = predicate_of(condition, uid_of)
        facts = table.facts
        ids = sorted(
            device_id
            for device_id, slot in there.items()
            if (described := facts[slot]) is not None and test(described)
        )
    return Selection(ids, np.fromiter((there[device_id] for device_id in ids), np.int64, len(ids)), table)
