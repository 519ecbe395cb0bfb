"""Tables lose nothing, whatever the terminal's width and whatever stands in them."""

import io

from rich.console import Console

from tidewire_cli.output import Column, Output


def printed(width: int) -> str:
    out, file = Output(), io.StringIO()
    out._consoles[False] = Console(  # a terminal of that width
        file=file, width=width, force_terminal=True, color_system=None, highlight=False, soft_wrap=True
    )
    row = {"device": "meter-000000051", "labels": "unit=[degC]", "created": "2026-11-22T21:05:25.731316Z"}
    out.rows([row], (Column("device", "DEVICE"), Column("labels", "LABELS"), Column("created", "CREATED")))
    assert out.console().width == width
    return file.getvalue()


def test_a_narrow_terminal_breaks_lines_instead_of_cutting_ids() -> None:
    assert printed(20) == printed(200).replace(" " * 100, "")
    for whole in ("meter-000000051", "2026-11-22T21:05:25.731316Z"):
        assert whole in printed(20)


def test_brackets_are_no_markup(capsys) -> None:
    Output().rows([{"labels": "unit=[degC]"}], (Column("labels", "LABELS"),))
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == ["LABELS", "unit=[degC]"]
