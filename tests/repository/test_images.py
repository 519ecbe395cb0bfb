"""Images: one of every service, on a pinned base, with layers that are the same whenever they are made."""

import json
import os
import re
import time
from pathlib import Path

import pytest

import image_tree
import images

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_every_service_has_an_image() -> None:
    services = {path.name for path in (ROOT / "services").iterdir() if (path / "pyproject.toml").exists()}

    assert services | {"tidewire"} == set(images.DEFAULT)


def test_the_base_is_pinned_by_digest() -> None:
    assert re.search(r"@sha256:[0-9a-f]{64}$", images.official_base())


def test_the_last_stage_runs_as_a_number_and_compiles_nothing() -> None:
    last = DOCKERFILE.split("\nFROM ")[-1]

    assert re.search(r"^USER \d+:\d+$", last, re.MULTILINE)
    assert "uv " not in last
    assert "apt" not in last


def test_an_unknown_image_is_refused_by_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["images", "build", "storag"])

    assert images.main() == 1
    assert "no image called 'storag'" in capsys.readouterr().err


def tree(root: Path) -> Path:
    package = root / "lib" / "python3" / "site-packages" / "thing"
    (package / "tests").mkdir(parents=True)
    (package / "tests" / "test_thing.py").write_text("")
    (package / "__init__.py").write_text("NUMBERS = {1, 2, 3}\n")
    (package / "fast.pyx").write_text("")
    notes = package.parent / "thing-1.dist-info"
    notes.mkdir()
    (notes / "uv_cache.json").write_text(str(root))
    (notes / "RECORD").write_text(
        f"thing/__init__.py,,\nthing-1.dist-info/uv_cache.json,sha256={root.name},9\n"
    )
    return root


def content(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(root)): (path.read_bytes(), int(path.stat().st_mtime))
        for path in root.rglob("*")
        if path.is_file()
    }


def test_a_tree_is_the_same_whenever_and_wherever_it_is_finished(tmp_path: Path) -> None:
    first, second = tree(tmp_path / "first"), tree(tmp_path / "elsewhere")
    for path in second.rglob("*"):
        os.utime(path, (time.time() - 1e6,) * 2)

    for made in (first, second):
        image_tree.finish(made, Path("/app"))

    assert content(first) == content(second)
    (record,) = first.rglob("RECORD")
    assert record.read_text() == "thing/__init__.py,,\n"
    names = {Path(name).name for name in content(first)}
    assert "__init__.py" in names
    assert "fast.pyx" not in names
    assert "test_thing.py" not in names


def test_only_what_was_added_goes_into_the_next_layer(tmp_path: Path) -> None:
    made, listing = tree(tmp_path / "app"), tmp_path / "listing"
    listing.write_text("\n".join(image_tree.listing(made)))
    late = made / "lib" / "python3" / "site-packages" / "thing" / "late.py"
    late.write_text("VALUE = 1\n")

    image_tree.added(listing, made, tmp_path / "layer")

    names = {Path(name).name.partition(".")[0] for name in content(tmp_path / "layer")}
    assert names == {"late"}


def test_components_are_listed_without_what_changes_from_run_to_run(tmp_path: Path) -> None:
    source, target = tmp_path / "uv.json", tmp_path / "sbom.json"
    document = {
        "serialNumber": "urn:uuid:1",
        "metadata": {"timestamp": "now"},
        "components": [{"name": "grpcio"}],
    }
    source.write_text(json.dumps(document))

    image_tree.sbom("tidewire-storage", source, target)

    written = json.loads(target.read_text())
    assert "serialNumber" not in written
    assert written["metadata"] == {"properties": [{"name": "tidewire:package", "value": "tidewire-storage"}]}
    assert written["components"] == document["components"]
