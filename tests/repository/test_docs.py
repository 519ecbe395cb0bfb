"""Pages link to what exists, and the list of decisions is complete."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\[[^\]]+\]\((?!https?:|mailto:|#)([^)#\s]+)")


def committed_pages() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


@pytest.mark.parametrize("page", committed_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]+`", "", page.read_text(), flags=re.DOTALL)

    assert [target for target in LINK.findall(text) if not (page.parent / target).exists()] == []


def test_every_decision_is_listed() -> None:
    records = {path.name for path in (ROOT / "docs/adr").glob("[0-9]*.md")}

    assert set(re.findall(r"\((\d{4}-[^)]+\.md)\)", (ROOT / "docs/adr/README.md").read_text())) == records


def test_every_reason_of_an_error_has_a_line_in_the_reference() -> None:
    page = (ROOT / "docs/reference/errors.md").read_text()
    sources = [*ROOT.glob("libs/tidewire-kit/src/**/*.py"), *ROOT.glob("services/*/src/**/*.py")]
    raised = {reason for path in sources for reason in re.findall(r'reason="([A-Z_]+)"', path.read_text())}

    assert len(raised) > 20
    assert sorted(reason for reason in raised if f"`{reason}`" not in page) == []


def test_every_reason_of_a_dead_letter_has_a_line_in_the_reference() -> None:
    page = (ROOT / "docs/reference/errors.md").read_text()
    sources = [*ROOT.glob("libs/tidewire-kit/src/**/*.py"), *ROOT.glob("services/*/src/**/*.py")]
    given = re.compile(r'_set_aside\([^"\n]*"([A-Z_]+)"|reason = "([A-Z_]+)" if [^\n]* else "([A-Z_]+)"')
    reasons = {
        reason for path in sources for found in given.findall(path.read_text()) for reason in found if reason
    }

    assert reasons >= {"MALFORMED", "PROCESSING_FAILED"}
    assert sorted(reason for reason in reasons if f"| `{reason}` |" not in page) == []


def test_the_pages_name_settings_that_exist() -> None:
    known = (ROOT / "docs/reference/settings.md").read_text()
    pages = [ROOT / "README.md", *ROOT.glob("docs/how-to/*.md"), ROOT / "docs/architecture.md"]
    for_clients = {"TIDEWIRE_TOKEN", "TIDEWIRE_CONTEXT", "TIDEWIRE_TENANT"}
    named = {name for page in pages for name in re.findall(r"TIDEWIRE_[A-Z_]+[A-Z]", page.read_text())}

    assert len(named) > 20
    assert sorted(name for name in named - for_clients if f"`{name}`" not in known) == []
