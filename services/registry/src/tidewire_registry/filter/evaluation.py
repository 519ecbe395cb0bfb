"""What a condition means, in plain Python over one device. Stores must agree with it: their contract suite compares.

A store that has no index for a condition may use it on what it reads.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

from tidewire_kit.ids import Uid
from tidewire_registry.domain.devices import Device
from tidewire_registry.filter import conditions as c
from tidewire_registry.filter.geometry import distance_meters

_COMPARE: Mapping[c.Operator, Callable[[Any, Any], bool]] = {
    c.Operator.EQ: operator.eq,
    c.Operator.NE: operator.ne,
    c.Operator.LT: operator.lt,
    c.Operator.LE: operator.le,
    c.Operator.GT: operator.gt,
    c.Operator.GE: operator.ge,
}


def admits(condition: c.Condition | None, device: Device, uid_of: Callable[[str], Uid | None]) -> bool:
    """Whether the condition is true of the device. `uid_of`: uid of a device id in the same tenant."""
    match condition:
        case None:
            return True
        case c.And(operands):
            return all(admits(operand, device, uid_of) for operand in operands)
        case c.Or(operands):
            return any(admits(operand, device, uid_of) for operand in operands)
        case c.Not(operand):
            return not admits(operand, device, uid_of)
        case c.TextIs(field, op, value):
            return _COMPARE[op](_text(device, field), value)
        case c.TextStartsWith(field, prefix):
            text = _text(device, field)
            return bool(text) and text.startswith(prefix)
        case c.LabelIs(key, op, value):
            return key in device.labels and _COMPARE[op](device.labels[key], value)
        case c.LabelStartsWith(key, prefix):
            return key in device.labels and device.labels[key].startswith(prefix)
        case c.NumberIs(field, op, number):
            own = _number(device, field)
            return own is not None and _COMPARE[op](own, number)
        case c.StateIs(state):
            return device.state is state
        case c.HasAncestor(device_id):
            return uid_of(device_id) in device.ancestors
        case c.HasLocation() | c.WithinBox() | c.WithinRadius():
            return _place(condition, device)


def _text(device: Device, field: c.TextField) -> str:
    if field is c.TextField.NAME:
        return device.id
    return device.type if field is c.TextField.TYPE else device.parent_id


def _number(device: Device, field: c.NumberField) -> float | int | None:
    if field is c.NumberField.CREATE_TIME:
        return device.created_us
    if field is c.NumberField.UPDATE_TIME:
        return device.updated_us
    if device.location is None:
        return None
    return device.location.latitude if field is c.NumberField.LATITUDE else device.location.longitude


def _place(condition: c.HasLocation | c.WithinBox | c.WithinRadius, device: Device) -> bool:
    place = device.location
    if place is None:
        return False
    match condition:
        case c.HasLocation():
            return True
        case c.WithinBox(south, west, north, east):
            if not south <= place.latitude <= north:
                return False
            if west <= east:
                return west <= place.longitude <= east
            return place.longitude >= west or place.longitude <= east
        case c.WithinRadius(latitude, longitude, meters):
            return distance_meters(place.latitude, place.longitude, latitude, longitude) <= meters
