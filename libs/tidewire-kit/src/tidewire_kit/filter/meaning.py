"""What fields, operators and functions of a filter mean: one restriction → one condition. For filter.parser."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lark import Token

from tidewire_kit.devices import DeviceState
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.filter.conditions import (
    Condition,
    HasAncestor,
    HasLocation,
    LabelIs,
    LabelStartsWith,
    Not,
    NumberField,
    NumberIs,
    Operator,
    StateIs,
    TextField,
    TextIs,
    TextStartsWith,
    WithinBox,
    WithinRadius,
)

FIELDS = (
    "name, type, state, parent, labels.KEY, create_time, update_time, location.latitude, location.longitude"
)
FUNCTIONS = (
    'ancestor("NAME"), within_box(south, west, north, east), within_radius(latitude, longitude, meters)'
)
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Argument:
    """A value in a filter, unquoted."""

    position: int
    """Of its first character, from 0."""
    text: str
    prefix: bool
    """Whether an unescaped `*` followed the text."""
    quoted: bool


def fail(position: int, why: str) -> InvalidArgument:
    """The error for something at a position, counted from 0."""
    return InvalidArgument("filter", f"at position {position + 1}: {why}", reason="FILTER_INVALID")


def restriction(member: Token, comparator: str, argument: Argument, tenant_id: str) -> Condition:
    """`member comparator argument` as a condition. Raises InvalidArgument with the position of what is wrong."""
    path = str(member)
    if path.startswith("labels."):
        return _label(_label_key(path[len("labels.") :], member), comparator, argument)
    if path == "labels":
        if comparator != ":":
            raise fail(
                member.start_pos or 0, "compare one label, labels.KEY, or test for a key with labels:KEY"
            )
        if argument.prefix:
            raise fail(
                argument.position, "name a label's key after labels: ; a wildcard is not supported here"
            )
        return LabelStartsWith(_label_key(argument.text, member), "")
    if path == "state":
        return _state(comparator, argument)
    if path == "location" and comparator == ":" and argument.prefix and not argument.text:
        return HasLocation()
    if path in TextField:
        return _text(TextField(path), comparator, argument, tenant_id)
    if path in NumberField:
        return _number(NumberField(path), comparator, argument)
    raise fail(member.start_pos or 0, f"unknown field {path[:80]!r}; the fields are {FIELDS}")


def call(member: Token, arguments: Sequence[Argument], tenant_id: str) -> Condition:
    """A function as a condition. Raises InvalidArgument with the position of what is wrong."""
    name, position = str(member), member.start_pos or 0
    if name == "ancestor":
        _check_count(name, arguments, 1, position)
        if arguments[0].prefix:
            raise fail(arguments[0].position, "ancestor names one device; a wildcard is not supported here")
        return HasAncestor(_device_id(_plain(arguments[0]), tenant_id))
    if name == "within_box":
        _check_count(name, arguments, 4, position)
        south, west, north, east = (_float(argument) for argument in arguments)
        for argument, value, limit in zip(
            arguments, (south, west, north, east), (90, 180, 90, 180), strict=True
        ):
            _check_degrees(argument, value, limit)
        if south > north:
            raise fail(arguments[0].position, f"south {south:g} is north of north {north:g}; swap them")
        return WithinBox(south, west, north, east)
    if name == "within_radius":
        _check_count(name, arguments, 3, position)
        latitude, longitude, meters = (_float(argument) for argument in arguments)
        _check_degrees(arguments[0], latitude, 90)
        _check_degrees(arguments[1], longitude, 180)
        if meters < 0:
            raise fail(arguments[2].position, f"a radius of {meters:g} m is negative; give 0 or more")
        return WithinRadius(latitude, longitude, meters)
    raise fail(position, f"unknown function {name[:80]!r}; the functions are {FUNCTIONS}")


def _text(field: TextField, comparator: str, argument: Argument, tenant_id: str) -> Condition:
    operator = _operator(comparator)
    if argument.prefix:
        _check_wildcard(operator, argument)
        prefix = _plain(argument)
        if comparator == ":" and not prefix:
            condition: Condition = TextStartsWith(field, "")
        elif field is TextField.TYPE:
            condition = TextStartsWith(field, prefix)
        else:
            condition = _name_starts(field, prefix, tenant_id)
        return Not(condition) if operator is Operator.NE else condition
    value = _plain(argument)
    if field is not TextField.TYPE:
        value = _device_id(value, tenant_id)
    return TextIs(field, operator, value)


def _name_starts(field: TextField, prefix: str, tenant_id: str) -> Condition:
    """A prefix of a resource name, whole or of the device id alone."""
    stem = f"tenants/{tenant_id}/devices/"
    if prefix.startswith(stem):
        return TextStartsWith(field, prefix[len(stem) :])
    # A part of the stem is a prefix of every name and of no device id, as these have no slash.
    return TextStartsWith(field, "" if "/" in prefix and stem.startswith(prefix) else prefix)


def _label(key: str, comparator: str, argument: Argument) -> Condition:
    operator = _operator(comparator)
    if argument.prefix:
        _check_wildcard(operator, argument)
        starts = LabelStartsWith(key, _plain(argument))
        if operator is Operator.NE:
            raise fail(
                argument.position, f'write NOT labels.{key} = "{argument.text}*"; != takes no wildcard'
            )
        return starts
    return LabelIs(key, operator, _plain(argument))


def _state(comparator: str, argument: Argument) -> Condition:
    operator = _operator(comparator)
    if operator not in (Operator.EQ, Operator.NE) or argument.prefix:
        raise fail(argument.position, "state takes = and != and no wildcard")
    if argument.text not in DeviceState.__members__:
        states = ", ".join(DeviceState.__members__)
        raise fail(argument.position, f"unknown state {argument.text[:40]!r}; the states are {states}")
    condition = StateIs(DeviceState[argument.text])
    return Not(condition) if operator is Operator.NE else condition


def _number(field: NumberField, comparator: str, argument: Argument) -> Condition:
    operator = _operator(comparator)
    if argument.prefix:
        raise fail(argument.position, f"{field} takes no wildcard")
    if field in (NumberField.LATITUDE, NumberField.LONGITUDE):
        return NumberIs(field, operator, _float(argument))
    return NumberIs(field, operator, _time_us(argument))


def _operator(comparator: str) -> Operator:
    """`:` on a value that is not a collection asks whether it is that value, as AIP-160 says."""
    return Operator.EQ if comparator == ":" else Operator(comparator)


def _check_wildcard(operator: Operator, argument: Argument) -> None:
    if operator not in (Operator.EQ, Operator.NE):
        raise fail(argument.position, "a wildcard goes with = or != only")


def _label_key(text: str, member: Token) -> str:
    if text[:1] in "\"'":
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    if _LABEL_KEY.fullmatch(text) is None:
        raise fail(member.start_pos or 0, f"{text[:80]!r} is no label's key: [a-z][a-z0-9_.-]{{0,62}}")
    return text


def _device_id(text: str, tenant_id: str) -> str:
    """The device id of a resource name of this tenant; other text as it is, which then names no device."""
    return text.removeprefix(f"tenants/{tenant_id}/devices/")


def _plain(argument: Argument) -> str:
    inner = "\x00" if argument.quoted else "*"
    if inner in argument.text:
        raise fail(
            argument.position,
            'a wildcard * may stand at the end only; for the character itself quote it: "\\*"',
        )
    return argument.text


def _float(argument: Argument) -> float:
    if argument.prefix or _NUMBER.fullmatch(argument.text) is None:
        raise fail(argument.position, f"{argument.text[:40]!r} is not a number")
    value = float(argument.text)
    if not math.isfinite(value):
        raise fail(argument.position, f"{argument.text[:40]!r} is too large")
    return value


def _time_us(argument: Argument) -> int:
    if _TIME.fullmatch(argument.text) is None:
        why = (
            f'{argument.text[:40]!r} is not a time; quote it in RFC 3339, for example "2026-01-31T12:00:00Z"'
        )
        raise fail(argument.position, why)
    try:
        moment = datetime.fromisoformat(argument.text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise fail(argument.position, f"{argument.text[:40]!r} is not in the calendar") from None
    span = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def _check_count(name: str, arguments: Sequence[Argument], count: int, position: int) -> None:
    if len(arguments) != count:
        raise fail(
            position, f"{name} takes {count} argument{'s'[: count != 1]}, not {len(arguments)}: {FUNCTIONS}"
        )


def _check_degrees(argument: Argument, value: float, limit: int) -> None:
    if not -limit <= value <= limit:
        raise fail(argument.position, f"{value:g} is beyond {limit} degrees")
