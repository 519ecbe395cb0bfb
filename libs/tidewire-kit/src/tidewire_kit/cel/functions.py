"""The functions that a condition may call: which arguments they take, and what they give. Called by `checker`."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from tidewire_kit.cel.durations import duration_us, shown_duration
from tidewire_kit.cel.errors import alike
from tidewire_kit.cel.nodes import NUMBERS, Constant, Node, Type, WindowCall
from tidewire_kit.cel.regex import pattern
from tidewire_kit.cel.syntax import Call, Literal, Name, Syntax
from tidewire_kit.errors import InvalidArgument

if TYPE_CHECKING:
    from tidewire_kit.cel.checker import Checker

WINDOWS: Final = ("avg", "min", "max", "sum", "count", "rate", "delta", "stddev")
NUMERIC: Final = ("abs", "ceil", "floor", "sqrt")
STRINGS: Final = ("startsWith", "endsWith", "contains", "matches")
TIMES: Final = ("getHours", "getMinutes", "getDayOfWeek")
GLOBAL: Final = (
    *NUMERIC, *WINDOWS, "previous", "changed", "has", "size", "double", "duration", "timestamp", "metric",
)  # fmt: skip


def call(checker: "Checker", written: Call) -> Node:
    """The node of a call. Raises InvalidArgument with a position."""
    name, position = written.function, written.position
    if written.target is not None:
        return _method(checker, written, written.target)
    match name:
        case "has":
            return checker.has(_only(checker, written), position)
        case "metric":
            return checker.metric(_text(checker, _only(checker, written), "the name of a metric"), position)
        case "duration":
            text = _text(checker, _only(checker, written), "a duration")
            return Constant(Type.DURATION, _duration(checker, text, position), position)
        case "timestamp":
            return _timestamp(checker, written)
        case "size":
            argument = checker.expect(_only(checker, written), Type.STRING, "the argument of size()")
            return checker.operation("size", Type.INT, (argument,), position)
        case "double":
            argument = checker.check(_only(checker, written))
            if argument.type is Type.STRING:
                return checker.operation("parse_double", Type.DOUBLE, (argument,), position)
            if argument.type not in NUMBERS:
                raise checker.fail(position, f"double() takes a number or a string, not {argument.type}")
            return checker.to_double(argument)
        case "previous":
            return _previous(checker, _only(checker, written), position)
        case "changed":
            now = checker.expect(_only(checker, written), Type.DOUBLE, "the argument of changed()")
            return checker.operation(
                "!=", Type.BOOL, (now, _previous(checker, written.arguments[0], position)), position
            )
    if name in NUMERIC:
        argument = checker.expect(_only(checker, written), Type.DOUBLE, f"the argument of {name}()")
        return checker.operation(name, Type.DOUBLE, (argument,), position)
    if name in ("min", "max") and (len(written.arguments) != 2 or not _is_span(written.arguments[1])):
        if not 2 <= len(written.arguments) <= 16:
            why = f'{name}() takes 2 to 16 numbers, or a metric and a window: {name}(temperature, "5m")'
            raise checker.fail(position, why)
        numbers = tuple(checker.expect(a, Type.DOUBLE, f"an argument of {name}()") for a in written.arguments)
        return checker.operation(name, Type.DOUBLE, numbers, position)
    if name in WINDOWS:
        return _window(checker, written)
    hint = (
        f"; it is a method: x.{name}(…)"
        if name in (*STRINGS, *TIMES)
        else alike(name, (*GLOBAL, *STRINGS, *TIMES))
    )
    raise checker.fail(position, f"unknown function `{name[:64]}`{hint}")


def _method(checker: "Checker", written: Call, target: Syntax) -> Node:
    name, position = written.function, written.position
    if name in STRINGS:
        text = checker.expect(target, Type.STRING, f"what stands before .{name}()")
        argument = checker.expect(_only(checker, written), Type.STRING, f"the argument of .{name}()")
        if name == "matches":
            if not isinstance(argument, Constant):
                raise checker.fail(argument.position, "a pattern must be a constant string")
            try:
                pattern(str(argument.value))
            except ValueError as error:
                raise checker.fail(argument.position, f"{error}") from None
        return checker.operation(name, Type.BOOL, (text, argument), position)
    if name == "size":
        _none(checker, written)
        text = checker.expect(target, Type.STRING, "what stands before .size()")
        return checker.operation("size", Type.INT, (text,), position)
    if name in TIMES:
        _none(checker, written)
        moment = checker.expect(target, Type.TIME, f"what stands before .{name}()")
        return checker.operation(name, Type.DOUBLE, (moment,), position)
    hint = f"; write {name}(…)" if name in GLOBAL else alike(name, (*STRINGS, *TIMES, "size"))
    raise checker.fail(position, f"unknown method `{name[:64]}`{hint}")


def _window(checker: "Checker", written: Call) -> Node:
    name, position, limit = written.function, written.position, checker.environment.max_window_us
    if limit == 0:
        raise checker.fail(position, "there are no windows here; compare the metric itself")
    if len(written.arguments) != 2:
        raise checker.fail(position, f'{name}() takes a metric and a window: {name}(temperature, "5m")')
    metric = _metric(checker, written.arguments[0], name)
    span = written.arguments[1]
    match span:
        case Literal(str(text), at) | Call("duration", None, (Literal(str(text)),), at):
            window_us = _duration(checker, text, at)
        case _:
            raise checker.fail(span.position, f'a window is a constant duration: {name}({metric}, "5m")')
    if not 0 < window_us <= limit:
        why = f"a window of {shown_duration(window_us)} is not between 1us and {shown_duration(limit)}"
        raise checker.fail(span.position, f"{why}; shorten it, or ask storage for longer spans")
    return checker.window(WindowCall(name, metric, window_us), position)


def _previous(checker: "Checker", argument: Syntax, position: int) -> Node:
    if checker.environment.max_window_us == 0:
        raise checker.fail(position, "readings before this one are not known here; compare the metric itself")
    return checker.window(WindowCall("previous", _metric(checker, argument, "previous"), 0), position)


def _metric(checker: "Checker", argument: Syntax, function: str) -> str:
    match argument:
        case Name(text, position) if text not in ("labels", "type", "device", "time"):
            return checker.metric_name(text, position)
        case Call("metric", None, (Literal(str(text), position),)):
            return checker.metric_name(text, position)
    raise checker.fail(argument.position, f"{function}() is over a metric: give its name alone")


def _is_span(argument: Syntax) -> bool:
    return (isinstance(argument, Literal) and isinstance(argument.value, str)) or (
        isinstance(argument, Call) and argument.function == "duration"
    )


def _timestamp(checker: "Checker", written: Call) -> Node:
    text = _text(checker, _only(checker, written), "a time")
    try:
        if "T" not in text.upper():
            raise ValueError
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is None:
            raise ValueError
        span = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        why = 'a time is written in RFC 3339: timestamp("2026-01-31T12:00:00Z")'
        raise checker.fail(written.position, why) from None
    value = (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds
    return Constant(Type.TIME, value, written.position)


def _duration(checker: "Checker", text: str, position: int) -> int:
    try:
        return duration_us(text)
    except InvalidArgument as error:
        raise checker.fail(position, error.why) from None


def _text(checker: "Checker", argument: Syntax, what: str) -> str:
    if isinstance(argument, Literal) and isinstance(argument.value, str):
        return argument.value
    raise checker.fail(argument.position, f"{what} is given as a constant string here")


def _only(checker: "Checker", written: Call) -> Syntax:
    if len(written.arguments) != 1:
        given = len(written.arguments)
        raise checker.fail(written.position, f"{written.function}() takes 1 argument, not {given}")
    return written.arguments[0]


def _none(checker: "Checker", written: Call) -> None:
    if written.arguments:
        raise checker.fail(written.position, f".{written.function}() takes no argument; times are in UTC")
