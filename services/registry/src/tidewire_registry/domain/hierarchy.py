"""The tree of gateways, sites and devices of one tenant: ancestors, depth, cycles. Used by application.devices.

A device's `ancestors` are stored with it and published, so that ingestion knows offline which gateway may publish for
it. A new parent therefore means a new revision of every descendant.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tidewire_kit.errors import FailedPrecondition, InvalidArgument
from tidewire_kit.ids import Uid
from tidewire_registry.domain.devices import Device, DeviceDraft

MAX_ANCESTORS = 15
"""A tree is at most 16 devices deep."""


def below(parent: Device, where: str) -> tuple[Uid, ...]:
    """Ancestors of a child of `parent`. InvalidArgument when that is too deep."""
    return _checked((parent.uid, *parent.ancestors), where)


def resolve_drafts(
    drafts: Sequence[DeviceDraft],
    uids: Sequence[Uid],
    stored: Mapping[str, Device],
) -> list[tuple[Uid, ...]]:
    """Ancestors of each of some new devices, whose parents are `stored` or among the new ones, in any order.

    Raises InvalidArgument (naming the field) for a parent that is in neither, a cycle among
    the new ones, or a tree deeper than 16.
    """
    if not any(draft.parent_id for draft in drafts):
        return [()] * len(drafts)
    index = {draft.id: i for i, draft in enumerate(drafts)}
    found: dict[int, tuple[Uid, ...]] = {}
    for start in range(len(drafts)):
        path: list[int] = []
        i = start
        while i not in found:
            path.append(i)
            parent_id = drafts[i].parent_id
            if not parent_id:
                found[i] = ()
            elif parent_id in stored:
                found[i] = below(stored[parent_id], f"{drafts[i].where}.parent")
            elif parent_id not in index:
                raise unknown_parent(parent_id, f"{drafts[i].where}.parent")
            elif index[parent_id] in path:
                raise InvalidArgument(
                    f"{drafts[i].where}.parent", f"device {parent_id} would be its own ancestor"
                )
            else:
                i = index[parent_id]
        for child in reversed(path):
            if child not in found:
                up = index[drafts[child].parent_id]
                found[child] = _checked((uids[up], *found[up]), f"{drafts[child].where}.parent")
    return [found[i] for i in range(len(drafts))]


def unknown_parent(parent_id: str, field: str) -> InvalidArgument:
    """The error for a parent that the tenant does not have."""
    return InvalidArgument(field, f"device {parent_id} does not exist in this tenant; create it first")


def moved_tree(device: Device, ancestors: tuple[Uid, ...], descendants: Iterable[Device]) -> list[Device]:
    """Next revisions of the descendants of `device`, whose ancestors will be `ancestors`.

    Raises FailedPrecondition when one of them would be too deep. The device itself is the caller's.
    """
    out = []
    for descendant in descendants:
        place = descendant.ancestors.index(device.uid)
        new = (*descendant.ancestors[: place + 1], *ancestors)
        if len(new) > MAX_ANCESTORS:
            why = f"device {descendant.id} would be more than {MAX_ANCESTORS + 1} levels deep; choose a higher parent"
            raise FailedPrecondition(why, reason="HIERARCHY_TOO_DEEP", subject=descendant.id)
        out.append(replace(descendant, ancestors=new, revision=descendant.revision + 1))
    return out


def check_no_cycle(device: Device, parent: Device) -> None:
    """Raises InvalidArgument when `parent` is the device itself or below it."""
    if parent.uid == device.uid or device.uid in parent.ancestors:
        why = f"device {parent.id} is {device.id} itself or below it; a device cannot be its own ancestor"
        raise InvalidArgument("device.parent", why)


def _checked(ancestors: tuple[Uid, ...], where: str) -> tuple[Uid, ...]:
    if len(ancestors) > MAX_ANCESTORS:
        raise InvalidArgument(
            where, f"would be deeper than {MAX_ANCESTORS + 1} levels; choose a higher parent"
        )
    return ancestors
