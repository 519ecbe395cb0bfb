"""Filters as text: what they mean, and what people are told of mistakes."""

import pytest

from tidewire_kit.devices import DeviceState
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.filter import parse
from tidewire_kit.filter.conditions import (
    And,
    HasAncestor,
    HasLocation,
    LabelIs,
    LabelStartsWith,
    Not,
    NumberField,
    NumberIs,
    Operator,
    Or,
    StateIs,
    TextField,
    TextIs,
    TextStartsWith,
    WithinBox,
    WithinRadius,
)

A = TextIs(TextField.TYPE, Operator.EQ, "a")
B = TextIs(TextField.TYPE, Operator.EQ, "b")
C = TextIs(TextField.TYPE, Operator.EQ, "c")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("  ", None),
        ("type = a", A),
        ('type="a"', A),
        ("type : a", A),
        ("type=a AND type=b", And((A, B))),
        ("type=a type=b", And((A, B))),
        ("type=a OR type=b", Or((A, B))),
        ("type=a AND type=b OR type=c", And((A, Or((B, C))))),  # OR binds tighter in AIP-160
        ("(type=a AND type=b) OR type=c", Or((And((A, B)), C))),
        ("NOT type=a", Not(A)),
        ("-type=a type=b", And((Not(A), B))),
        ("((type=a))", A),
        ("type != a", TextIs(TextField.TYPE, Operator.NE, "a")),
        ("type = th*", TextStartsWith(TextField.TYPE, "th")),
        ('type != "th*"', Not(TextStartsWith(TextField.TYPE, "th"))),
        ('name = "tenants/acme/devices/gw"', TextIs(TextField.NAME, Operator.EQ, "gw")),
        ("name = gw", TextIs(TextField.NAME, Operator.EQ, "gw")),
        ("name = tenants/acme/devices/gw*", TextStartsWith(TextField.NAME, "gw")),
        ("name = tenants/acme/dev*", TextStartsWith(TextField.NAME, "")),
        ("name = t*", TextStartsWith(TextField.NAME, "t")),
        ("parent = tenants/acme/devices/gw", TextIs(TextField.PARENT, Operator.EQ, "gw")),
        ("parent:*", TextStartsWith(TextField.PARENT, "")),
        ('parent = ""', TextIs(TextField.PARENT, Operator.EQ, "")),
        ("labels.site = s1", LabelIs("site", Operator.EQ, "s1")),
        ("labels.a.b-c != 'x y'", LabelIs("a.b-c", Operator.NE, "x y")),
        ('labels."a.b" >= "1"', LabelIs("a.b", Operator.GE, "1")),
        ("labels.site = pl*", LabelStartsWith("site", "pl")),
        ("labels.site:*", LabelStartsWith("site", "")),
        ("labels:site", LabelStartsWith("site", "")),
        ('labels.x = "a\\*"', LabelIs("x", Operator.EQ, "a*")),
        ('labels.x = "a\\"b"', LabelIs("x", Operator.EQ, 'a"b')),
        ("state = BLOCKED", StateIs(DeviceState.BLOCKED)),
        ("state != ACTIVE", Not(StateIs(DeviceState.ACTIVE))),
        ("location:*", HasLocation()),
        ("location.latitude < -12.5", NumberIs(NumberField.LATITUDE, Operator.LT, -12.5)),
        (
            'create_time >= "1970-01-01T00:00:01.5Z"',
            NumberIs(NumberField.CREATE_TIME, Operator.GE, 1_500_000),
        ),
        ('update_time < "1970-01-01T01:00:00+01:00"', NumberIs(NumberField.UPDATE_TIME, Operator.LT, 0)),
        ('ancestor("tenants/acme/devices/gw")', HasAncestor("gw")),
        ("ancestor(gw)", HasAncestor("gw")),
        ("within_box(-1, -2.5, 3, 4e0)", WithinBox(-1.0, -2.5, 3.0, 4.0)),
        ("within_radius(1, 2, 300) type=a", And((WithinRadius(1.0, 2.0, 300.0), A))),
    ],
)
def test_meaning(text: str, expected: object) -> None:
    assert parse(text, "acme") == expected


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("type = ", 8, "end"),
        ("type == a", 7, "'='"),
        ("type = a )", 10, "')'"),
        ("(type = a", 10, "end"),
        ("()", 2, "')'"),
        ("type = a AND", 13, "end"),
        ("type = a OR OR type = b", 13, "OR"),
        ('type = "abc', 8, "'\"'"),
        ("colour = red", 1, "unknown field 'colour'; the fields are name, type"),
        ("type = a AND location.height = 3", 14, "unknown field 'location.height'"),
        ("red", 1, "stands alone"),
        ("nearby(3)", 1, "unknown function 'nearby'"),
        ("within_box(1, 2, 3)", 1, "takes 4 arguments, not 3"),
        ("within_box(3, 0, 1, 0)", 12, "north"),
        ("within_radius(91, 0, 1)", 15, "beyond 90 degrees"),
        ("within_radius(9, 0, -1)", 21, "negative"),
        ("state = GONE", 9, "the states are ENROLLED, ACTIVE"),
        ("state > ACTIVE", 9, "= and !="),
        ("location.latitude < north", 21, "not a number"),
        ("location.latitude < 1e999", 21, "too large"),
        ("create_time > yesterday", 15, "RFC 3339"),
        ('create_time > "2026-02-30T00:00:00Z"', 15, "calendar"),
        ("type = *a", 8, "end only"),
        ('type = "a*b"', 8, "end only"),
        ("type < a*", 8, "wildcard"),
        ("labels.Site = a", 1, "no label's key"),
        ("labels = a", 1, "labels.KEY"),
        ("type = a \x01", 10, "not understood"),
    ],
)
def test_mistakes_name_their_position(text: str, position: int, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(text, "acme")
    assert caught.value.field == "filter"
    assert caught.value.why.startswith(f"at position {position}: ")
    assert says in caught.value.why


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000 + "type=a" + ")" * 10_000,
        "(" * 10_000,
        "NOT " * 5_000 + "type=a",
        "-" * 10_000 + "type=a",
        "type=a " * 101,
        "type=a OR " * 200 + "type=a",
        "x" * 40_000,
        '"' + "\\" * 9_999,
        "NOT (" * 5_000,
    ],
)
def test_hostile_filters_are_refused_and_crash_nothing(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(text, "acme")
    assert caught.value.field == "filter"
    assert len(caught.value.message) < 500


def test_the_deepest_filter_is_accepted() -> None:
    assert parse("(" * 32 + "type=a" + ")" * 32, "acme") == A
    assert parse('type="' + "(" * 100 + '"', "acme") == TextIs(TextField.TYPE, Operator.EQ, "(" * 100)


def test_a_name_in_another_tenant_is_nobody() -> None:
    condition = parse("name = tenants/other/devices/gw", "acme")
    assert condition == TextIs(TextField.NAME, Operator.EQ, "tenants/other/devices/gw")
