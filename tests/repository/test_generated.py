"""The generators notice what they have to notice; that the committed output is fresh is `make verify`'s business."""

import re
from pathlib import Path

import pytest

import docs
import docs_settings
import protos

ROOT = Path(__file__).resolve().parents[2]


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


def test_the_settings_of_every_process_are_described() -> None:
    text = docs_settings.pages()["settings.md"]

    assert text.index("## Shared: `TIDEWIRE_*`") > 0
    assert re.search(r"^\| `TIDEWIRE_DATA_DIR` \| a path \| .+ \| .+ \|$", text, re.MULTILINE)
    for path in ROOT.glob("services/*/src/*/settings.py"):
        assert f"`TIDEWIRE_{path.parts[-4].upper()}_*`" in text


def test_generated_pages_are_known_by_their_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs, "REFERENCE", tmp_path)
    (tmp_path / "written.md").write_text("# By hand\n")
    (tmp_path / "made.md").write_text(docs.HEADER + "# Made\n")

    assert docs.committed() == {tmp_path / "made.md"}
