"""Thousands of generated conditions, by columns and row by row: cel-python is the judge of what they mean.

Where the platform's language differs on purpose the judge is told so (`FUNCTIONS`) or the generator keeps away: an int
next to a double, and constants that always fail. docs/reference/conditions.md has each such place.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import celpy
import numpy as np
import pytest
from celpy import celtypes
from celpy.evaluation import CELEvalError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidewire_kit.cel import FactTable, Frame, Scratch, compile_expression, parse
from tidewire_kit.devices import DeviceFacts
from tidewire_kit.errors import InvalidArgument

METRICS = ("t", "u", "v")
VALUES = (None, -2.0, -0.5, 0.0, 1.0, 1.5, 3.0, 40.25)
DEVICES = (
    DeviceFacts("buoy-1", "buoy", {"site": "a", "limit": "1.5"}, "", None, 2, 0, 0, ()),
    DeviceFacts("pump-7", "pump", {"site": "ab", "limit": "none"}, "", None, 2, 0, 0, ()),
    DeviceFacts("x", "buoy", {}, "", None, 2, 0, 0, ()),
)
TABLE = FactTable(DEVICES.__getitem__)
SCRATCH = Scratch()
HOUR_US = 3_600_000_000


def typed(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The judge's operators give some results in Python's own types, which its other functions then refuse."""

    def run(left: Any, right: Any) -> Any:
        result = operation(left, right)
        if isinstance(left, str) and isinstance(result, str):
            return celtypes.StringType(result)
        return celtypes.DoubleType(result) if type(result) is float else result

    return run


def divide(left: Any, right: Any) -> Any:
    """Division by zero is an error for doubles also."""
    return CELEvalError("divide by zero", ZeroDivisionError, ()) if not right else left / right


def remainder(left: Any, right: Any) -> Any:
    """Doubles have a remainder also, with the sign of the dividend."""
    if not right:
        return CELEvalError("modulus by zero", ZeroDivisionError, ())
    if not isinstance(left, celtypes.DoubleType):
        return left % right
    return math.nan if math.isinf(left) else math.fmod(left, right)


FUNCTIONS = {
    "_+_": typed(operator.add),
    "_-_": typed(operator.sub),
    "_*_": typed(operator.mul),
    "_/_": typed(divide),
    "_%_": typed(remainder),
}
ENVIRONMENT = celpy.Environment()


@dataclass(frozen=True)
class Row:
    metrics: Mapping[str, float | None]
    hour: int
    device: int

    def activation(self) -> dict[str, Any]:
        facts = DEVICES[self.device]
        return {
            **{name: celtypes.DoubleType(v) for name, v in self.metrics.items() if v is not None},
            "device": celtypes.StringType(facts.id),
            "type": celtypes.StringType(facts.type),
            "labels": celpy.json_to_cel(dict(facts.labels)),
            "time": celtypes.TimestampType(f"1970-01-0{1 + self.hour // 24}T{self.hour % 24:02}:00:00Z"),
        }


rows = st.builds(
    Row,
    st.fixed_dictionaries({name: st.sampled_from(VALUES) for name in METRICS}),
    st.integers(0, 47),
    st.integers(0, len(DEVICES) - 1),
)


def formatted(template: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(lambda given: template.format(*given))


def grown(depth: int, per_row: bool) -> dict[str, st.SearchStrategy[str]]:
    """Strategies for the text of each type; without `per_row` only such as depend on the device alone."""
    order = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    equality = st.sampled_from(["==", "!="])
    arithmetic = st.sampled_from(["+", "-", "*", "/", "%"])
    text = st.sampled_from(
        ['"a"', "'ab'", '""', "type", "device", "labels.site", 'labels["limit"]', "labels.none"]
    )
    number = st.sampled_from(["1.5", "0.0", "-2.0", "1e2", "double(labels.limit)", "double(3)"])
    whole = st.sampled_from(["0", "1", "-3", "0x10", "size(labels.site)", "device.size()"])
    key = st.sampled_from(["site", "limit", "none"])
    truth = st.one_of(
        st.sampled_from(["true", "false"]),
        formatted("has(labels.{})", key),
        formatted('("{}" in labels)', key),
        formatted('(labels.site {} "a")', order),
    )
    if per_row:
        metric = st.sampled_from(METRICS)
        number = st.one_of(metric, metric, number)
        truth = st.one_of(
            formatted("({} {} {})", metric, order, number),
            formatted("({} {} {})", number, order, metric),
            formatted("(time.getHours() {} {})", order, st.integers(0, 24).map(str)),
            formatted('(time {} timestamp("1970-01-01T{}:00:00Z"))', order, st.integers(10, 23).map(str)),
            formatted('(time - timestamp("1970-01-01T08:00:00Z") {} duration("{}h"))', order, whole_hours()),
            formatted("({} in [1.0, 1.5, -2.0])", metric),
            truth,
        )
    if depth == 0:
        return {"double": number, "int": whole, "string": text, "bool": truth}
    below, fixed = grown(depth - 1, per_row), grown(depth - 1, False)
    double, integer, string, boolean = below["double"], below["int"], below["string"], below["bool"]
    return {
        "double": st.one_of(
            number,
            formatted("({} {} {})", double, arithmetic, double),
            formatted("-({})", double),
            formatted("({} ? {} : {})", boolean, double, double),
            formatted("double({})", integer),
        ),
        "int": st.one_of(
            whole,
            formatted("({} {} {})", integer, arithmetic, integer),
            formatted("({} ? {} : {})", fixed["bool"], integer, integer),
            formatted("size({})", string),
        ),
        "string": st.one_of(
            text,
            formatted("({} + {})", string, string),
            formatted("({} ? {} : {})", fixed["bool"], string, string),
        ),
        "bool": st.one_of(
            truth,
            formatted("({} && {})", boolean, boolean),
            formatted("({} || {} || {})", boolean, boolean, boolean),
            formatted("!({})", boolean),
            formatted("({} {} {})", boolean, equality, boolean),
            formatted("({} ? {} : {})", boolean, boolean, boolean),
            formatted("({} {} {})", double, order, double),
            formatted("({} {} {})", integer, order, integer),
            formatted("({} {} {})", string, order, string),
            formatted("({} in [1.0, 3.0])", double),
            formatted('({} in ["a", "buoy", "x"])', string),
            formatted("{}.{}({})", string, st.sampled_from(["startsWith", "endsWith", "contains"]), string),
            formatted("{}.matches({})", string, st.sampled_from(["'^a'", "'b+$'", "r'\\d'", "''"])),
        ),
    }


def whole_hours() -> st.SearchStrategy[str]:
    return st.integers(0, 30).map(str)


conditions = grown(2, per_row=True)["bool"]


def judged(text: str, given: list[Row]) -> list[bool | None]:
    program = ENVIRONMENT.program(ENVIRONMENT.compile(text), functions=FUNCTIONS)
    answers: list[bool | None] = []
    for row in given:
        try:
            answers.append(bool(program.evaluate(row.activation())))
        except CELEvalError:
            answers.append(None)
    return answers


def by_columns(text: str, given: list[Row]) -> list[bool | None]:
    frame = Frame(
        len(given),
        {
            name: np.array([math.nan if (v := row.metrics[name]) is None else v for row in given])
            for name in METRICS
        },
        time_us=np.array([row.hour * HOUR_US for row in given], np.int64),
        slots=np.array([row.device for row in given]),
        facts=TABLE,
        scratch=SCRATCH,
    )
    found = compile_expression(parse(text)).evaluate(frame)
    assert not (found.truth & ~found.known).any()
    return [bool(truth) if known else None for truth, known in zip(found.truth, found.known, strict=True)]


TEXTS = st.lists(conditions, min_size=10, max_size=10)
GIVEN = st.lists(rows, min_size=1, max_size=4)


def check(texts: list[str], given: list[Row]) -> None:
    for text in texts:
        try:
            found = by_columns(text, given)
        except InvalidArgument as error:
            if "this always fails" not in error.why:
                raise
            continue
        assert found == judged(text, given), text


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS, GIVEN)
def test_columns_and_rows_agree(texts: list[str], given: list[Row]) -> None:
    check(texts, given)


@pytest.mark.thorough
@pytest.mark.timeout(600)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS, GIVEN)
def test_columns_and_rows_agree_on_thousands(texts: list[str], given: list[Row]) -> None:
    check(texts, given)
