"""`tidewire report` in each of its formats, with names that would break out of them."""

import csv
import io
import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from tidewire.storage.v1 import storage_pb2
from tidewire_cli.report_rows import VALUES

HOSTILE = "</text><script>alert(1)</script>&\"'\x1b[31m\x00[bold]"
DAY_US = 86_400_000_000
OCT_1 = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp()) * 1_000_000
SVG = "{http://www.w3.org/2000/svg}"
WHOLE = ("readings", "devices", "active_devices", "active_days")


def part(rows, metrics=("level", "temp"), progress=1.0):
    """A part of rows (subject, metric, start, readings, avg)."""
    subjects = sorted({row[0] for row in rows})
    message = storage_pb2.ReportResponse(subjects=subjects, metrics=metrics, progress=progress)
    message.tier = storage_pb2.RAW
    for subject, metric, start, readings, avg in rows:
        message.subject_index.append(subjects.index(subject))
        message.metric_index.append(metrics.index(metric))
        message.period_start_unix_us.append(start)
        message.readings.append(readings)
        message.avg.append(avg)
        message.first_time_unix_us.append(start + 1)
        message.last_time_unix_us.append(start + DAY_US - 1)
        for name in set(VALUES) - {"readings", "avg"} | {"sum"}:
            getattr(message, name).append(1 if name in WHOLE else 0.5)
    return message


@pytest.fixture
def hostile(platform):
    """Two days of two subjects and two metrics, in parts out of order."""
    platform.storage.report_parts += [
        part([("d-2", "temp", OCT_1 + 2 * DAY_US, 5, 2.5), (HOSTILE, "temp", OCT_1, 30, 1.5)], progress=0.5),
        storage_pb2.ReportResponse(progress=0.75, tier=storage_pb2.RAW),
        part([("d-2", "temp", OCT_1, 10, 3.0), ("d-2", "level", OCT_1, 4, 3.0)]),
    ]
    return platform.storage


def test_a_table_for_people(online, hostile):
    result = online("report", "--month", "2026-10", "--by", "site", "-m", "temp", "--filter", "type = pump")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["SITE", "MONTH", "METRIC", "READINGS"]
    assert [line.split()[0] for line in lines[1:3]] == [
        "</text><script>alert(1)</script>&\"'\ufffd[31m\ufffd[bold]",
        "d-2",
    ]
    (asked,) = hostile.reports
    assert (asked.month.year, asked.month.month, asked.month.day) == (2026, 10, 0)
    assert (asked.group_by_label, asked.filter, list(asked.metrics)) == ("site", "type = pump", ["temp"])
    assert asked.granularity == storage_pb2.REPORT_GRANULARITY_MONTH


def test_json_and_csv_hold_every_row_in_order(online, hostile, tmp_path):
    order = [(HOSTILE, "temp", 30), ("d-2", "level", 4), ("d-2", "temp", 10), ("d-2", "temp", 5)]
    for arguments in (["--format", "json"], ["--output", "json"]):
        rows = json.loads(online("report", "--month", "2026-10", *arguments).stdout)
        assert [(row["device"], row["metric"], row["readings"]) for row in rows] == order
        assert rows[0]["period"] == "2026-10"
        assert rows[0]["last_time"] == "2026-10-01T23:59:59.999999Z"
    for arguments in (["--format", "csv"], ["--output", "csv"]):
        text = online("report", "--month", "2026-10", "-g", "day", *arguments).stdout
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [(row["device"], row["metric"], int(row["readings"])) for row in rows] == order
        assert rows[-1]["period"] == "2026-10-03"
    files = [tmp_path / "all.json", tmp_path / "all.csv"]
    for file in files:
        result = online("report", "--start", "2026-10-01", "--end", "2026-11", "--to", str(file))
        assert result.stdout == f"{file}: 4 rows\n"
    assert len(json.loads(files[0].read_text())) == 4
    assert len(list(csv.DictReader(io.StringIO(files[1].read_text())))) == 4
    asked = hostile.reports[-1]
    assert (asked.start_date.day, asked.end_date.month, asked.end_date.day) == (1, 11, 1)
    assert not asked.HasField("month")


def test_parquet_has_types(online, hostile, tmp_path):
    file = tmp_path / "all.parquet"
    assert online("report", "--month", "2026-10", "--to", str(file)).exit_code == 0
    table = pq.read_table(file)
    assert table["device"].to_pylist() == [HOSTILE, "d-2", "d-2", "d-2"]
    assert table["readings"].to_pylist() == [30, 4, 10, 5]
    assert table["period_start"][3].as_py() == datetime(2026, 10, 3, tzinfo=UTC)
    assert str(table.schema.field("last_time").type) == "timestamp[us, tz=UTC]"
    assert str(table.schema.field("avg").type) == "double"


def test_a_chart_has_a_curve_for_each_of_the_largest(online, hostile):
    lines = online("report", "--month", "2026-10", "--format", "chart").stdout.splitlines()
    assert lines[0] == "readings by device and day, 2026-10: 2 lines"
    assert "\x1b" not in "".join(lines)
    assert [line.split()[-1] for line in lines[1:]] == ["30", "19"]
    assert any(character in lines[2] for character in "▁▂▃▄▅▆▇█")
    asked = hostile.reports[-1]
    assert asked.granularity == storage_pb2.REPORT_GRANULARITY_DAY
    one = online("report", "--month", "2026-10", "--format", "chart", "--column", "avg", "--top", "1").stdout
    assert one.splitlines()[0].endswith("the 1 largest of 3")
    assert one.splitlines()[1].startswith("d-2 level")
    months = online("report", "--month", "2026-10", "--format", "chart", "-g", "month").stdout
    assert "█" in months


@pytest.mark.parametrize("granularity", ["day", "month"])
@pytest.mark.parametrize("column", VALUES)
def test_svg_is_xml_that_holds_names_as_text(online, hostile, tmp_path, granularity, column):
    file = tmp_path / "chart.svg"
    arguments = ("--month", "2026-10", "-g", granularity, "--column", column, "--to", str(file))
    assert online("report", *arguments).exit_code == 0
    root = ET.fromstring(file.read_bytes())
    assert root.tag == f"{SVG}svg"
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "style", "rect", "line", "text"),
    }
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]
    names = [element.text or "" for element in root.iter(f"{SVG}title")]
    assert any(
        name.startswith("</text><script>alert(1)</script>&\"'\ufffd[31m\ufffd[bold]") for name in names
    )
    assert "\x1b" not in file.read_text()


def test_nothing_to_report(online, platform, tmp_path):
    platform.storage.report_parts.append(storage_pb2.ReportResponse(progress=1.0))
    result = online("report", "--month", "2026-10")
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "",
        "There are no readings in this time.\n",
    )
    assert online("report", "--format", "chart").stdout == ""
    assert json.loads(online("report", "--output", "json").stdout) == []
    for name in ("a.csv", "a.parquet", "a.svg"):
        assert online("report", "--to", str(tmp_path / name)).exit_code == 0
    assert ET.parse(tmp_path / "a.svg").getroot().tag == f"{SVG}svg"
    assert len(pq.read_table(tmp_path / "a.parquet")) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--month", "2026-13"], "--month: '2026-13' is no day or month"),
        (["--month", "2026-10-01"], "--month: '2026-10-01' is not a month"),
        (["--month", "2026-10", "--start", "2026-10"], "not both"),
        (["--end", "2026-10"], "--end needs --start"),
        (["--start", "2026-10", "--end", "2026-10-01"], "--end must be later"),
        (["--devices", "a,b", "--filter", "type = pump"], "not both"),
        (["--column", "median"], "there is no column 'median'"),
        (["--format", "parquet"], "needs --to FILE"),
        (["--format", "table", "--to", "x.csv"], "is for the terminal"),
        (["--to", "x.pdf"], "give --format"),
    ],
)
def test_wrong_usage_is_2_and_one_line(online, platform, arguments, told):
    result = online("report", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert platform.storage.reports == []
