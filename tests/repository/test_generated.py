"""The generators notice what they have to notice; that the committed output is fresh is `make verify`'s business."""

from pathlib import Path

import pytest

import docs
import docs_settings
import protos


def write(directory: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = directory / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def test_missing_superfluous_and_changed_code_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protos, "ROOT", tmp_path)
    fresh = write(tmp_path / "fresh", same="1", new="2", changed="3")
    committed = write(tmp_path / "committed", same="1", old="2", changed="4")

    assert protos.differences(fresh, committed) == [
        "differs: committed/changed.py",
        "missing: committed/new.py",
        "superfluous: committed/old.py",
    ]


def test_replacing_wipes_old_output(tmp_path: Path) -> None:
    target = write(tmp_path / "target", old="1")

    protos.replace(write(tmp_path / "fresh", new="2"), target)

    assert protos.contents(target) == {"new.py": b"2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "target"]


def test_imports_of_imports_are_copied_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protos, "SOURCES", tmp_path)
    (tmp_path / "a.proto").write_text('import "google/api/b.proto";\nimport "google/protobuf/any.proto";\n')
    wheel = tmp_path / "wheel" / "google" / "api"
    wheel.mkdir(parents=True)
    (wheel / "b.proto").write_text('import public "google/api/c.proto";\n')
    (wheel / "c.proto").write_text("")

    found = protos.google_closure([Path("a.proto")], tmp_path / "wheel")

    assert found == ["google/api/b.proto", "google/api/c.proto"]
    (wheel / "c.proto").write_text('import "google/api/gone.proto";\n')
    with pytest.raises(protos.ProtosError, match=r"google/api/gone\.proto"):
        protos.google_closure([Path("a.proto")], tmp_path / "wheel")


def test_a_setting_without_docstring_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs_settings, "ROOT", tmp_path)
    source = tmp_path / "services/pump/src/pump/settings.py"
    source.parent.mkdir(parents=True)
    body = 'class Settings:\n    """Pump."""\n\n    PREFIX = "TIDEWIRE_PUMP_"\n    port: int = 7009\n'
    source.write_text(body + '    """TCP port."""\n')

    assert "| `TIDEWIRE_PUMP_PORT` | int | `7009` | TCP port. |" in docs_settings.pages()["settings.md"]
    source.write_text(body)
    with pytest.raises(SystemExit, match=r"Settings\.port"):
        docs_settings.pages()


def test_generated_pages_are_known_by_their_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs, "REFERENCE", tmp_path)
    (tmp_path / "written.md").write_text("# By hand\n")
    (tmp_path / "made.md").write_text(docs.HEADER + "# Made\n")

    assert docs.committed() == {tmp_path / "made.md"}
