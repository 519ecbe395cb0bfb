"""Compiled conditions over frames: values, what is not known, windows, and facts of devices."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from tidewire_kit.cel import (
    Environment,
    FactTable,
    Frame,
    Scratch,
    Truth,
    WindowCall,
    compile_expression,
    parse,
)
from tidewire_kit.devices import DeviceFacts
from tidewire_kit.errors import InvalidArgument

NAN = np.nan
HOUR_US = 3_600_000_000


def device(name: str, type_: str, **labels: str) -> DeviceFacts:
    return DeviceFacts(name, type_, labels, "", None, 2, 0, 0, ())


BUOY = device("b1", "buoy", site="north", limit="3")
PUMP = device("p1", "pump")
DEVICES = [BUOY, PUMP, None]


def frame(**columns: list[float]) -> Frame:
    """Six rows, an hour apart; their devices are the buoy and the pump in turn, the last one is deleted."""
    given: dict[str, NDArray[np.float64]] = {
        "t": np.array([1, 2, 3, 4, NAN, 6.0]),
        "u": np.array([0, 1, 0, 1, 2, 3.0]),
        **{name: np.array(values, np.float64) for name, values in columns.items()},
    }
    return Frame(
        6,
        given,
        time_us=np.arange(6, dtype=np.int64) * HOUR_US,
        slots=np.array([0, 1, 0, 1, 0, 2], np.uint32),
        facts=FactTable(DEVICES.__getitem__),
    )


def evaluate(text: str, rows: Frame) -> Truth:
    return compile_expression(parse(text)).evaluate(rows)


def answers(truth: Truth) -> str:
    """One letter a row: T, F, or - where it is not known."""
    return "".join(
        ("T" if true else "F") if known else "-" for true, known in zip(truth.truth, truth.known, strict=True)
    )


@pytest.mark.parametrize(
    ("text", "expected", "failed"),
    [
        ("t > 3", "FFFT-T", 0),
        ("3 < t", "FFFT-T", 0),
        ("t >= 3.0", "FFTT-T", 0),
        ("t == 3", "FFTF-F", 0),
        ("t > 10", "FFFF-F", 0),
        ("t > 0", "TTTT-T", 0),
        ("u >= 0", "TTTTTT", 0),
        ("true", "TTTTTT", 0),
        ("t + u * 2 - 1 > 3", "FFFT-T", 0),
        ("t / u > 1", "-T-T-T", 2),
        ("t % 2 == u", "FFFF-F", 0),
        ("abs(-t) > 3 && ceil(t) == floor(t)", "FFFT-T", 0),
        ("sqrt(t - 2) > 1", "-FFT-T", 1),
        ("min(t, u, 2) == 2", "FFFF-T", 0),
        ("t in [1, 2, 3]", "TTTF-F", 0),
        ("t in [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]", "TTTT-F", 0),
        # one operand that decides is enough
        ("t > 3 || u > 1", "FFFTTT", 0),
        ("t > 3 && u > 5", "FFFFFF", 0),
        ("t / u > 1 || t > 2", "-TTT-T", 1),
        ("t / u > 1 && false", "FFFFFF", 0),
        ("!(t / u > 1)", "-F-F-F", 2),
        ("nothing > 3 && t > 3", "FFF---", 0),
        ("nothing > 3", "------", 0),
        ("t > 2 ? u > 1 : t < 2", "TFFF-T", 0),
        ("t > 2 ? t / u > 1 : true", "TT-T-T", 1),
        ("(u > 0 ? t : 100) > 50", "TFTF-F", 0),
        ("has(t)", "TTTTFT", 0),
        ("has(nothing) || t > 3", "FFFT-T", 0),
        ("has(u) == true", "TTTTTT", 0),
        # what the device says
        ('type == "buoy"', "TFTFT-", 1),
        ('labels.site == "north"', "T-T-T-", 3),
        ('has(labels.site) && labels.site == "north"', "TFTFT-", 1),
        ('"site" in labels ? t > 2 : t > 3', "FFTT--", 1),
        ("t >= double(labels.limit)", "F-T---", 3),
        ('device.startsWith("b") && t > 2', "FFTF--", 1),
        ('labels.site.matches("^n.*h$")', "T-T-T-", 3),
        ('labels.site in ["north", "south"]', "T-T-T-", 3),
        ("size(device) * 2 > 3", "TTTTT-", 1),
        # time
        ("time.getHours() >= 3", "FFFTTT", 0),
        ("time.getDayOfWeek() == 4 && time.getMinutes() == 0", "TTTTTT", 0),
        ('time > timestamp("1970-01-01T03:00:00+01:00")', "FFFTTT", 0),
        ('time - timestamp("1970-01-01T00:00:00Z") >= duration("2h30m")', "FFFTTT", 0),
        ('time + duration("1h") == timestamp("1970-01-01T02:00:00Z")', "FTFFFF", 0),
    ],
)
def test_what_a_condition_is_in_each_row(text: str, expected: str, failed: int) -> None:
    found = evaluate(text, frame())

    assert answers(found) == expected
    assert found.failed == failed
    if found.same is not None:
        assert set(answers(found)) == {"T" if found.same else "F"}


def test_windows_are_columns_that_the_caller_provides() -> None:
    expression = parse('avg(t, "5m") > 3 && max(t, duration("300s")) < 9 && avg(t, "300s") < u || changed(u)')

    assert expression.windows == (
        WindowCall("avg", "t", 300_000_000),
        WindowCall("max", "t", 300_000_000),
        WindowCall("previous", "u", 0),
    )
    assert expression.metrics == ("u",)
    average, most, previous = (window.column for window in expression.windows)
    rows = frame(
        **{average: [1, 4, 4, NAN, 4, 4], most: [1, 5, 5, 5, NAN, 9], previous: [0, 1, 0, 1, NAN, 3]},
        u=[0, 1, 0, 1, 2, 3],
    )
    assert answers(compile_expression(expression).evaluate(rows)) == "FFF--F"


def test_a_metric_may_have_the_name_of_a_fact() -> None:
    rows = frame(time=[1, 2, 3, NAN, 5, 6], type=[1, 0, 1, 0, 1, 0])

    assert parse('metric("time") > 2 && metric("type") == 1').metrics == ("time", "type")
    assert answers(evaluate('metric("time") > 2 && metric("type") == 1', rows)) == "FFTFTF"
    assert answers(evaluate("time.getHours() > 2 || t / u < 0", rows)) == "-F-TTT"
    assert answers(evaluate('has(metric("time"))', rows)) == "TTTFTT"


def test_equal_conditions_are_equal_wherever_they_stand() -> None:
    assert parse("t > 3") == parse(" ( t>3 ) ")
    assert hash(parse('avg(t, "1m") > 3')) == hash(parse('avg(t, "60s")   > 3'))
    assert parse("t > 3") != parse("t > 4")


def test_facts_are_asked_once_for_each_device_until_they_change() -> None:
    asked: list[int] = []
    held = {0: BUOY, 1: PUMP}

    def facts_of(slot: int) -> DeviceFacts:
        asked.append(slot)
        return held[slot]

    table = FactTable(facts_of)
    program = compile_expression(parse('labels.site == "north"'))
    same = compile_expression(parse('labels["site"]  ==  "north" || u > 3'))
    slots = np.array([1, 0, 1, 0])

    def ask() -> list[str]:
        rows = Frame(4, {"u": np.zeros(4)}, slots=slots, facts=table)
        return [answers(program.evaluate(rows)), answers(same.evaluate(rows))]

    assert ask() == ask() == ["-T-T", "-T-T"]
    assert sorted(asked) == [0, 1]
    held[1] = device("p1", "pump", site="north")
    table.forget(1)
    assert ask() == ["TTTT", "TTTT"]
    assert sorted(asked) == [0, 1, 1]
    held[0] = PUMP
    table.forget()
    assert ask() == ["T-T-", "T-T-"]


def test_facts_that_do_not_fit_are_worked_out_again() -> None:
    table = FactTable(DEVICES.__getitem__, most_bytes=1)
    programs = [compile_expression(parse(f'type == "{name}"')) for name in ("buoy", "pump", "buoy")]
    slots = np.array([0, 1, 5_000])
    table_of_many = FactTable(lambda slot: BUOY if slot == 5_000 else None, most_bytes=1)

    for program, expected in zip(programs, ("TF", "FT", "TF"), strict=True):
        assert answers(program.evaluate(Frame(2, {}, slots=slots[:2], facts=table))) == expected
    assert answers(programs[0].evaluate(Frame(3, {}, slots=slots, facts=table_of_many))) == "--T"


def test_without_devices_facts_are_not_known() -> None:
    assert answers(evaluate('type == "buoy" || t > 3', Frame(2, {"t": np.array([3.0, 4.0])}))) == "-T"


def test_scratch_is_used_again_by_frames_of_any_size() -> None:
    scratch, program = Scratch(), compile_expression(parse("t + 1 > 3 && t < 5 || t / t > 2"))
    for rows in (3, 0, 7, 1, 7):
        values = np.arange(rows, dtype=np.float64)
        found = program.evaluate(Frame(rows, {"t": values}, scratch=scratch))
        assert found.truth.tolist() == [2 < value < 5 for value in values]
        assert found.known.tolist() == [value != 0 for value in values]


def test_columns_are_left_as_they_are() -> None:
    values = np.array([1.0, NAN, 3.0])
    values.flags.writeable = False

    assert answers(evaluate("-t < 0 && t in [1.0, 3.0] && !(t == 2)", Frame(3, {"t": values}))) == "T-T"


def test_a_pattern_that_others_go_back_over_is_linear() -> None:
    devices = [device("a", "x", site="a" * 127 + "!"), device("b", "x", site="a" * 128)]
    rows = Frame(2, {}, slots=np.array([0, 1]), facts=FactTable(devices.__getitem__))

    assert answers(evaluate('labels.site.matches("^(a+)+$")', rows)) == "FT"
    assert answers(evaluate('labels.site.matches("^(a|a?)+$")', rows)) == "FT"


def test_what_is_slow_to_import_is_not_imported() -> None:
    program = (
        "import sys, tidewire_kit.cel as cel; print(*sys.modules); "
        "cel.compile_expression(cel.parse('t > 3 && device.matches(\"a\")')); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported, after_parsing = (set(line.split()) for line in done.stdout.splitlines())

    assert "lark" not in imported
    assert "lark" in after_parsing
    assert not {"celpy", "pendulum", "yaml"} & after_parsing


def test_metrics_are_held_against_those_there_are() -> None:
    environment = Environment(frozenset({"t"}))

    assert parse("t > 3", environment) == parse("t > 3")
    with pytest.raises(InvalidArgument, match="unknown metric `u`"):
        parse("u > 3", environment)
