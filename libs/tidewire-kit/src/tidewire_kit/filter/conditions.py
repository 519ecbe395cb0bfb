"""The tree of a parsed filter. Every condition is true or false of a device; there is no third value.

A comparison with something that a device does not have (a label, a location) is false, also with `!=`; `NOT` of it is
therefore true. Texts compare by code point. Stores evaluate the tree; `tests/` has a plain Python evaluation that says
what each node means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tidewire_kit.devices import DeviceState


class TextField(StrEnum):
    """Fields that compare as text. `NAME` and `PARENT` are device ids, the resource name's prefix taken off."""

    NAME = "name"
    TYPE = "type"
    PARENT = "parent"


class NumberField(StrEnum):
    """Fields that compare as numbers: degrees, and unix µs."""

    LATITUDE = "location.latitude"
    LONGITUDE = "location.longitude"
    CREATE_TIME = "create_time"
    UPDATE_TIME = "update_time"


class Operator(StrEnum):
    """Comparison operators."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="


@dataclass(frozen=True, slots=True)
class TextIs:
    """`field operator value`."""

    field: TextField
    operator: Operator
    value: str


@dataclass(frozen=True, slots=True)
class TextStartsWith:
    """`field = "prefix*"`. An empty prefix: the field is not empty."""

    field: TextField
    prefix: str


@dataclass(frozen=True, slots=True)
class LabelIs:
    """The device has the label, and `its value operator value`."""

    key: str
    operator: Operator
    value: str


@dataclass(frozen=True, slots=True)
class LabelStartsWith:
    """The device has the label, and its value starts with `prefix` (empty: whatever its value)."""

    key: str
    prefix: str


@dataclass(frozen=True, slots=True)
class NumberIs:
    """The device has the number, and `it operator value`."""

    field: NumberField
    operator: Operator
    value: float | int


@dataclass(frozen=True, slots=True)
class HasLocation:
    """The device has a location."""


@dataclass(frozen=True, slots=True)
class StateIs:
    """The device is in this state."""

    state: DeviceState


@dataclass(frozen=True, slots=True)
class HasAncestor:
    """The device is below the device of this id."""

    device_id: str


@dataclass(frozen=True, slots=True)
class WithinBox:
    """The device is in the box, edges included. West > east: the box crosses the 180th meridian. Degrees."""

    south: float
    west: float
    north: float
    east: float


@dataclass(frozen=True, slots=True)
class WithinRadius:
    """The device is at most `meters` away, on a sphere of the Earth's mean radius. Degrees."""

    latitude: float
    longitude: float
    meters: float


@dataclass(frozen=True, slots=True)
class Not:
    """The operand is false."""

    operand: "Condition"


@dataclass(frozen=True, slots=True)
class And:
    """Every operand is true; at least two."""

    operands: Sequence["Condition"]


@dataclass(frozen=True, slots=True)
class Or:
    """An operand is true; at least two."""

    operands: Sequence["Condition"]


Condition = (
    TextIs
    | TextStartsWith
    | LabelIs
    | LabelStartsWith
    | NumberIs
    | HasLocation
    | StateIs
    | HasAncestor
    | WithinBox
    | WithinRadius
    | Not
    | And
    | Or
)
