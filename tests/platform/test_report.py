"""`tidewire report` against the real platform: by device and by label, and as a file."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tidewire_testkit.whole.platform import UpProcess, until

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]


async def test_the_command_reports_by_device_and_label(up: UpProcess, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text((await up.create_tenant("report")).token)
    as_tenant = ("--token-file", str(token_file), "--tenant", "report")
    moment = ("--time", "2026-01-15T12:00:00Z")
    for name, site in (("a", "north"), ("b", "north"), ("c", "south")):
        created = await up.command("device", "create", name, "-l", f"site={site}", *as_tenant)
        assert created.status == 0, created.err
        published = await up.command("publish", name, "temperature=21.5", "level=2", *moment, *as_tenant)
        assert published.status == 0, published.err

    span = ("--month", "2026-01")

    async def visible() -> bool:
        result = await up.command("report", *span, "--output", "json", *as_tenant)
        assert result.status == 0, result.err
        return len(result.json()) == 6

    await until(visible, "all readings are in the report")
    by_site = await up.command("report", *span, "--by", "site", "-m", "level", "-o", "json", *as_tenant)
    assert [(row["group"], row["readings"], row["avg"]) for row in by_site.json()] == [
        ("north", 2, 2.0),
        ("south", 1, 2.0),
    ]
    filtered = ("--filter", 'labels.site = "south"')
    table = await up.command("report", *span, *filtered, *as_tenant)
    assert [line.split()[0] for line in table.out.splitlines()] == ["DEVICE", "c", "c"]
    file = tmp_path / "chart.svg"
    drawn = await up.command("report", *span, "--by", "site", "--to", str(file), *as_tenant)
    assert drawn.status == 0, drawn.err
    assert ET.parse(file).getroot().tag.endswith("svg")
