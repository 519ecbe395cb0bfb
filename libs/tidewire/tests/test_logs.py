import io
import json
from pathlib import Path

import pytest

from tidewire_platform import logs
from tidewire_platform.logs import LogSink, parse_line, render, severity


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_everything_goes_to_the_file_and_warnings_once_it_serves_to_the_terminal_as_json(
    tmp_path: Path,
) -> None:
    terminal = io.StringIO()
    sink = LogSink(tmp_path / "logs", terminal)
    sink.line("storage-1", '{"level": "warning", "event": "not yet", "time": "t"}')
    sink.show_warnings()
    sink.line("storage-1", '{"level": "info", "event": "started", "time": "t"}\n')
    sink.line("storage-1", '{"level": "warning", "event": "slow", "time": "t"}\n')
    sink.line("storage-1", "\n")
    sink.close()
    assert [entry["event"] for entry in entries(tmp_path / "logs" / "storage-1.jsonl")] == [
        "not yet",
        "started",
        "slow",
    ]
    shown = [json.loads(line) for line in terminal.getvalue().splitlines()]
    assert [(entry["event"], entry["process"]) for entry in shown] == [("slow", "storage-1")]


def test_a_terminal_gets_text_for_people(tmp_path: Path) -> None:
    terminal = Terminal()
    sink = LogSink(tmp_path, terminal)
    sink.line("registry", '{"level":"error","event":"disk full","time":"2026-01-02T03:04:05Z","path":"/d"}')
    sink.close()
    assert "03:04:05" in terminal.getvalue()
    assert "disk full" in terminal.getvalue()
    assert "path=/d" in terminal.getvalue()
    assert "{" not in terminal.getvalue()


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("Traceback (most recent call last):", 40),
        ("E0000 something of gRPC", 30),
        ("{broken", 30),
        ('{"a": 1}', 20),
    ],
)
def test_a_line_that_is_not_json_is_wrapped(line: str, level: int) -> None:
    entry = parse_line(line)
    assert severity(entry) == level
    assert json.loads(json.dumps(entry)) == entry


def test_a_full_file_is_set_aside_and_the_one_before_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "ROTATE_BYTES", 200)
    sink = LogSink(tmp_path, io.StringIO())
    for number in range(20):
        sink.line("up", json.dumps({"level": "info", "event": f"event {number}"}))
    sink.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["up.1.jsonl", "up.jsonl"]
    kept = entries(tmp_path / "up.1.jsonl") + entries(tmp_path / "up.jsonl")
    assert kept[-1]["event"] == "event 19"
    assert [entry["event"] for entry in kept] == [f"event {number}" for number in range(20 - len(kept), 20)]


def test_a_terminal_that_went_away_does_no_harm(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    sink = LogSink(tmp_path, Gone())
    sink.event("error", "first")
    sink.event("error", "second", pid=7)
    sink.close()
    assert [entry["event"] for entry in entries(tmp_path / "up.jsonl")] == ["first", "second"]


def test_render_shows_fields_once() -> None:
    text = render("up", {"level": "warning", "event": "service died", "process": "up", "exit_status": -9})
    assert text.count("exit_status=-9") == 1
    assert "process=" not in text
