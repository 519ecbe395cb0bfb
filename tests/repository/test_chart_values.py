"""The reader of the chart's annotated values.yaml refuses what would leave a key without type or description."""

from pathlib import Path

import pytest

import charts
from charts_values import Value, ValuesError, read_values, walk


def read(tmp_path: Path, text: str) -> Value:
    path = tmp_path / "values.yaml"
    path.write_text(text)
    return read_values(path)


def test_comments_become_descriptions_and_annotations(tmp_path: Path) -> None:
    root = read(
        tmp_path,
        "# An introduction.\n\n# Servers,\n# all of them.\nservers:\n"
        "  # How many.\n  # @schema {minimum: 1}\n  count: 3\n",
    )

    assert {value.path: value.description for value in walk(root)} == {
        "servers": "Servers, all of them.",
        "servers.count": "How many.",
    }
    assert charts.schema_of(root.children["servers"].children["count"]) == {
        "type": "integer",
        "description": "How many.",
        "minimum": 1,
    }


def test_every_block_refuses_other_keys(tmp_path: Path) -> None:
    made = charts.schema_of(read(tmp_path, "# A.\na:\n  # B.\n  b:\n    # C.\n    c: true\n"))

    assert made["additionalProperties"] is False
    assert made["properties"]["a"]["properties"]["b"]["additionalProperties"] is False


def test_a_block_like_another_has_its_keys_and_descriptions(tmp_path: Path) -> None:
    first = "# A.\na:\n  # How many.\n  # @schema {minimum: 1}\n  count: 3\n"
    root = read(tmp_path, first + "# B.\n# @like a\nb:\n  count: 5\n")

    assert (
        charts.schema_of(root.children["b"])["properties"]
        == charts.schema_of(root.children["a"])["properties"]
    )
    with pytest.raises(ValuesError, match="b is like a, but lacks count"):
        read(tmp_path, first + "# B.\n# @like a\nb:\n  # Other.\n  other: 5\n")
    with pytest.raises(ValuesError, match=r"b\.other is not in a"):
        read(tmp_path, first + "# B.\n# @like a\nb:\n  count: 5\n  other: 5\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\n", "a has no description"),
        ("# A.\na:\n  b: 1\n", r"a\.b has no description"),
        ("# A.\n# @typo {}\na: 1\n", "@typo is no annotation"),
    ],
)
def test_what_is_not_described_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ValuesError, match=reason):
        read(tmp_path, text)


@pytest.mark.parametrize("default", ["{}", "[]"])
def test_an_empty_default_needs_a_type(tmp_path: Path, default: str) -> None:
    root = read(tmp_path, f"# A.\na: {default}\n")

    with pytest.raises(ValuesError, match=r"a is an empty .*: say by @schema or @kubernetes what it takes"):
        charts.schema_of(root)


def test_the_chart_and_the_project_have_one_version() -> None:
    chart = (charts.CHART / "Chart.yaml").read_text()
    project = (charts.ROOT / "pyproject.toml").read_text().partition('version = "')[2].partition('"')[0]

    assert f"\nversion: {project}\n" in chart
    assert f'\nappVersion: "{project}"\n' in chart
