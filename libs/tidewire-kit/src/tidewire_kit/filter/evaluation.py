"""What a condition means, in plain Python over one device. Stores must agree with it: their contract suite compares.

A store that has no index for a condition may use it on what it reads; so do services, on the replica's facts.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tidewire_kit.devices import Location
from tidewire_kit.filter import conditions as c
from tidewire_kit.filter.geometry import distance_meters
from tidewire_kit.ids import Uid

_COMPARE: Mapping[c.Operator, Callable[[Any, Any], bool]] = {
    c.Operator.EQ: operator.eq,
    c.Operator.NE: operator.ne,
    c.Operator.LT: operator.lt,
    c.Operator.LE: operator.le,
    c.Operator.GT: operator.gt,
    c.Operator.GE: operator.ge,
}


class Described(Protocol):
    """A device as conditions see it: the registry's own, or `DeviceFacts`."""

    @property
    def id(self) -> str:
        """Device id."""

    @property
    def type(self) -> str:
        """Device type; empty: none."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels."""

    @property
    def parent_id(self) -> str:
        """Device id of the parent; empty: none."""

    @property
    def location(self) -> Location | None:
        """Where it is."""

    @property
    def state(self) -> int:
        """A `DeviceState`."""

    @property
    def created_us(self) -> int:
        """Unix µs."""

    @property
    def updated_us(self) -> int:
        """Unix µs."""

    @property
    def ancestors(self) -> Sequence[bytes]:
        """Uids of parent, its parent and so on."""


Test = Callable[[Described], bool]


def admits(condition: c.Condition | None, device: Described, uid_of: Callable[[str], Uid | None]) -> bool:
    """Whether the condition is true of one device. `uid_of`: uid of a device id in the same tenant."""
    return predicate_of(condition, uid_of)(device)


def predicate_of(condition: c.Condition | None, uid_of: Callable[[str], Uid | None]) -> Test:
    """The condition as a function of a device, for many of them; `uid_of`, as in `admits`, is asked here and now."""
    match condition:
        case None:
            return lambda device: True
        case c.And(operands):
            tests = [predicate_of(operand, uid_of) for operand in operands]
            return lambda device: all(test(device) for test in tests)
        case c.Or(operands):
            tests = [predicate_of(operand, uid_of) for operand in operands]
            return lambda device: any(test(device) for test in tests)
        case c.Not(operand):
            inner = predicate_of(operand, uid_of)
            return lambda device: not inner(device)
        case c.TextIs(field, op, value):
            compare, text = _COMPARE[op], _text(field)
            return lambda device: compare(text(device), value)
        case c.TextStartsWith(field, prefix):
            text = _text(field)
            return lambda device: bool(text(device)) and text(device).startswith(prefix)
        case c.LabelIs(key, op, value):
            compare = _COMPARE[op]
            return lambda device: key in device.labels and compare(device.labels[key], value)
        case c.LabelStartsWith(key, prefix):
            return lambda device: key in device.labels and device.labels[key].startswith(prefix)
        case c.NumberIs(field, op, number):
            return _number(field, _COMPARE[op], number)
        case c.StateIs(state):
            return lambda device: device.state == state
        case c.HasAncestor(device_id):
            uid = uid_of(device_id)
            return lambda device: uid in device.ancestors
        case c.HasLocation() | c.WithinBox() | c.WithinRadius():
            return lambda device: _place(condition, device.location)


def _text(field: c.TextField) -> Callable[[Described], str]:
    name = {c.TextField.NAME: "id", c.TextField.TYPE: "type", c.TextField.PARENT: "parent_id"}[field]
    return operator.attrgetter(name)


def _number(
    field: c.NumberField, compare: Callable[[Any, Any], bool], number: float | int
) -> Callable[[Described], bool]:
    match field:
        case c.NumberField.CREATE_TIME:
            return lambda device: compare(device.created_us, number)
        case c.NumberField.UPDATE_TIME:
            return lambda device: compare(device.updated_us, number)
        case c.NumberField.LATITUDE:
            return lambda device: device.location is not None and compare(device.location.latitude, number)
        case c.NumberField.LONGITUDE:
            return lambda device: device.location is not None and compare(device.location.longitude, number)


def _place(condition: c.HasLocation | c.WithinBox | c.WithinRadius, place: Location | None) -> bool:
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
