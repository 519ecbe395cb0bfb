import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewire_cli.importing import PlanOptions, propose
from tidewire_client import InvalidArgument


@pytest.fixture
def write(tmp_path):
    def make(text: str | bytes, name: str = "some file.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def test_the_buoy(write):
    plan = propose(write("time (UTC),temperature (celsius)\n2016-02-15T00:00:00Z,4.929\n"))
    assert plan.time.kind == "zoned"
    assert plan.metrics == ("temperature",)
    assert plan.columns[0].unit == "celsius"
    assert plan.device == "some-file"


def test_a_naive_time_is_refused_with_the_remedy(write):
    path = write("isig,datetime,glucose\n22.59,2010-03-24 09:51:00,258\n")
    with pytest.raises(InvalidArgument, match=r"'datetime' .* name no time zone.*--timezone") as caught:
        propose(path)
    assert caught.value.reason == "NAIVE_TIME"
    plan = propose(path, PlanOptions(timezone="America/New_York"))
    assert (plan.time.kind, plan.time.timezone) == ("naive", "America/New_York")
    assert plan.metrics == ("isig", "glucose")


def test_a_zone_in_the_heading_counts(write):
    assert propose(write("Time (UTC),a\n2016-02-15 00:00,1\n")).time.timezone == "UTC"


def test_an_unknown_zone_names_those_that_are_close(write):
    with pytest.raises(InvalidArgument, match="did you mean Europe/Berlin"):
        propose(write("time,a\n2016-02-15 00:00,1\n"), PlanOptions(timezone="Berlin"))


@pytest.mark.parametrize(
    ("stamp", "unit_us"),
    [("1700000000", 1e6), ("1700000000000", 1e3), ("1700000000000000", 1), ("17" + "0" * 17, 1e-3)],
)
def test_numbers_are_told_apart_by_their_size(write, stamp, unit_us):
    plan = propose(write(f"ts,a\n{stamp},1\n"))
    assert (plan.time.kind, plan.time.unit_us) == ("epoch", unit_us)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24.12.2026 18:30", "%d.%m.%Y %H:%M"),
        ("24/12/2026 18:30:05", "%d/%m/%Y %H:%M:%S"),
        ("12/24/2026", "%m/%d/%Y"),
    ],
)
def test_written_dates(write, text, expected):
    assert propose(write(f"time,a\n{text},1\n"), PlanOptions(timezone="UTC")).time.format == expected


def test_a_date_that_may_be_two_is_refused(write):
    with pytest.raises(InvalidArgument, match=r"day or the month first.*--time-format"):
        propose(write("time,a\n03/04/2026 18:30,1\n"), PlanOptions(timezone="UTC"))


def test_a_file_without_a_time_is_refused_with_its_columns(write):
    with pytest.raises(InvalidArgument, match="--time-column, one of 'b', 'a'"):
        propose(write("b,a\n1,1\n"))
    with pytest.raises(InvalidArgument, match="there is no column 'when'"):
        propose(write("b,a\n1,1\n"), PlanOptions(time_column="when"))


def test_a_time_of_another_name_is_found_by_its_values(write):
    assert propose(write("a,Zeitpunkt\n1,2016-02-15T00:00:00Z\n")).time.heading == "Zeitpunkt"


def test_semicolons_with_decimal_commas(write):
    plan = propose(write("time;Temp\n2016-02-15T00:00:00Z;1,5\n"))
    assert (plan.dialect.delimiter, plan.dialect.decimal_point) == (";", ",")
    assert plan.metrics == ("temp",)


def test_comments_marks_and_old_encodings(write):
    plan = propose(write("# logger 7\n\ntime;Temp °C\n2016-02-15T00:00:00Z;1.5\n".encode("cp1252")))
    assert (plan.dialect.encoding, plan.dialect.header_lines) == ("cp1252", 3)
    assert plan.metrics == ("temp_deg_c",)
    plan = propose(write(b"\xef\xbb\xbftime,a\n2016-02-15T00:00:00Z,1\n"))
    assert plan.time.heading == "time"


def test_what_is_no_metric_says_why(write):
    plan = propose(
        write(
            "time,a,note,empty,on,b\n2016-02-15T00:00:00Z,1,hello,,true,ERR\n2016-02-15T00:00:01Z,1,x,,off,2\n2016-02-15T00:00:02Z,1,x,,on,2\n"
        )
    )
    assert dict(plan.skipped) == {
        "note": "holds text, such as 'hello'",
        "empty": "has no values in the first rows",
    }
    assert [(column.metric, column.boolean) for column in plan.columns] == [
        ("a", False),
        ("on", True),
        ("b", False),
    ]


def test_columns_can_be_named_and_left_out(write):
    path = write("time,a,b,c\n2016-02-15T00:00:00Z,1,2,3\n")
    plan = propose(path, PlanOptions(metrics={"a": "first"}, skip=("b",)))
    assert plan.metrics == ("first", "c")
    with pytest.raises(InvalidArgument, match=r"cannot be the name of a metric.*such as bad_name"):
        propose(path, PlanOptions(metrics={"a": "Bad name"}))
    with pytest.raises(InvalidArgument, match="two columns would become the metric 'c'"):
        propose(path, PlanOptions(metrics={"a": "c"}))


def test_a_device_column_is_found_or_named(write):
    path = write("time,sensor_id,room,a\n2016-02-15T00:00:00Z,s1,r1,3\n")
    assert propose(path).device_heading == "sensor_id"
    assert propose(path, PlanOptions(device_column="room")).device_heading == "room"
    assert propose(path, PlanOptions(device="d")).device == "d"
    with pytest.raises(InvalidArgument, match="not a device id"):
        propose(path, PlanOptions(device="a b"))


@pytest.mark.parametrize("content", ["", "\n\n", "# only a comment\n"])
def test_an_empty_file(write, content):
    with pytest.raises(InvalidArgument, match="is empty"):
        propose(write(content))


def test_what_is_no_table(write, tmp_path):
    with pytest.raises(InvalidArgument, match="not a text file"):
        propose(write(b"\0\1\2\3" * 100))
    with pytest.raises(InvalidArgument, match="values, not headings"):
        propose(write("2016-02-15T00:00:00Z,1\n2016-02-15T00:00:01Z,2\n"))
    with pytest.raises(InvalidArgument, match="there is no file"):
        propose(tmp_path / "none.csv")
    with pytest.raises(InvalidArgument, match="is a directory"):
        propose(tmp_path)
    with pytest.raises(InvalidArgument, match="not a Parquet file"):
        propose(write("nonsense", "x.parquet"))
    with pytest.raises(InvalidArgument, match="no column of numbers"):
        propose(write("time,a\n2016-02-15T00:00:00Z,x\n"))


def test_what_is_no_file_to_read_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "not.csv.gz").write_text("time,a\n")
    (tmp_path / "good.csv").write_text("time,a\n2016-02-15T00:00:00Z,1\n")
    for name, why in [("pipe.csv", "read twice"), (".", "is a directory"), ("none.csv", "there is no file")]:
        with pytest.raises(InvalidArgument, match=why):
            propose(tmp_path / name)
    with pytest.raises(InvalidArgument, match=r"not\.csv\.gz cannot be read"):
        propose(tmp_path / "not.csv.gz")
    with pytest.raises(InvalidArgument, match="--encoding: 'klingon' is not known"):
        propose(tmp_path / "good.csv", PlanOptions(encoding="klingon"))


def test_parquet_says_its_types(tmp_path):
    path = tmp_path / "plant.parquet"
    table = pa.table(
        {
            "when": pa.array([0, 1], pa.timestamp("ms", tz="UTC")),
            "Flow (l/s)": [1.5, None],
            "count": pa.array([1, 2], pa.uint16()),
            "open": [True, False],
            "note": ["a", "b"],
            "device": pa.array(["p1", "p2"]).dictionary_encode(),
        }
    )
    pq.write_table(table, path)
    plan = propose(path)
    assert (plan.time.heading, plan.time.kind) == ("when", "zoned")
    assert plan.metrics == ("flow", "count", "open")
    assert plan.device_heading == "device"


def test_the_fingerprint_follows_what_matters(write):
    path = write("time,a\n2016-02-15T00:00:00Z,1\n")
    plan = propose(path)
    assert plan.fingerprint() == propose(path).fingerprint()
    assert plan.fingerprint() != propose(path, PlanOptions(device="other")).fingerprint()
