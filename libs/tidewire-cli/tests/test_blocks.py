import csv
import gzip
import io
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidewire_cli.importing import PlanOptions, last_time_us, load, propose, read_blocks, shifted_to_now
from tidewire_cli.importing.moments import MISSING, localize
from tidewire_client import InvalidArgument

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def write(tmp_path):
    def make(text: str | bytes, name: str = "file.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def one(plan):
    (block,) = read_blocks(plan)
    return block


def us(*when):
    return (datetime(*when, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def complaints(block):
    return [(item.line, item.why) for item in block.unreadable]


def test_values_times_and_lines(write):
    block = one(propose(write("time,a,b\n2016-02-15T00:00:00.5Z,1.5,\n2016-02-15T01:00:00+01:00,,7\n")))
    assert block.time_unix_us.tolist() == [us(2016, 2, 15) + 500_000, us(2016, 2, 15)]
    np.testing.assert_array_equal(block.values, [[1.5, np.nan], [np.nan, 7]])
    assert block.lines.tolist() == [2, 3]
    assert block.unreadable_count == 0


def test_broken_cells_and_lines_are_told_by_line_and_cost_no_other(write):
    block = one(
        propose(
            write(
                "time,a,b\n"
                "2016-02-15T00:00:00Z,1,1\n"
                "2016-02-15T00:00:01Z,ERR,2\n"
                "\n"
                "2016-02-15T00:00:02Z,3\n"
                "yesterday,4,4\n"
                ",5,5\n"
                "2016-02-15T00:00:03Z,inf,6\n"
                "2016-02-15T00:00:04Z,,\n"
                "2016-02-15T00:00:05Z,7,7\n"
            )
        )
    )
    assert block.lines.tolist() == [2, 3, 8, 10]
    np.testing.assert_array_equal(block.values, [[1, np.nan, np.nan, 7], [1, 2, 6, 7]])
    assert sorted(complaints(block)) == [
        (3, "'a' is 'ERR', not a number"),
        (5, "has 2 fields instead of 3"),
        (6, "'yesterday' is not a time"),
        (7, "no time"),
        (8, "'a' is 'inf', not a number"),
    ]


def test_infinities_are_told_and_cost_only_their_cell(write):
    block = one(
        propose(
            write(
                "time,a,b\n2016-02-15T00:00:00Z,2,2\n2016-02-15T00:00:01Z,inf,1\n2016-02-15T00:00:02Z,2,2\n"
            )
        )
    )
    np.testing.assert_array_equal(block.values, [[2, np.nan, 2], [2, 1, 2]])
    assert complaints(block) == [(3, "'a' is infinite")]


def test_quoted_line_ends_keep_the_lines_right(write):
    path = write(
        'time,note,a\n2016-02-15T00:00:00Z,"two\nlines",1\n2016-02-15T00:00:01Z,x,bad\n2016-02-15T00:00:02Z,x,3\n'
    )
    block = one(propose(path))
    assert block.lines.tolist() == [2, 5]
    assert complaints(block) == [(4, "'a' is 'bad', not a number")]


def test_a_device_column(write):
    block = one(
        propose(
            write(
                "time,device,a\n2016-02-15T00:00:00Z,Room 1,1\n2016-02-15T00:00:00Z,,2\n2016-02-15T00:00:00Z,b,3\n"
            )
        )
    )
    assert [block.devices[i] for i in block.device_index] == ["Room-1", "b"]
    assert complaints(block) == [(3, "no device")]


def test_devices_that_would_become_one_are_refused(write):
    with pytest.raises(InvalidArgument, match="would both become the device Room-1"):
        one(propose(write("time,device,a\n2016-02-15T00:00:00Z,Room 1,1\n2016-02-15T00:00:00Z,Room/1,2\n")))


@pytest.mark.parametrize(
    ("stamps", "unit"),
    [((1_700_000_000, 1_700_000_001), 1_000_000), ((1_700_000_000_000, 1_700_000_000_001), 1000)],
)
def test_epochs(write, stamps, unit):
    block = one(propose(write(f"ts,a\n{stamps[0]},1\n{stamps[1]},2\n")))
    assert block.time_unix_us.tolist() == [stamp * unit for stamp in stamps]


def test_epochs_in_nanoseconds_and_with_decimals(write):
    assert one(propose(write("ts,a\n1700000000123456789,1\n"))).time_unix_us.tolist() == [
        1_700_000_000_123_456
    ]
    assert one(propose(write("ts,a\n1700000000.25,1\n"))).time_unix_us.tolist() == [1_700_000_000_250_000]


def test_decimal_commas_and_booleans(write):
    block = one(
        propose(
            write("time;t;on\n24.12.2026 18:30;1,5;true\n24.12.2026 18:31;-0,25;off\n"),
            PlanOptions(timezone="UTC"),
        )
    )
    assert block.values.tolist() == [[1.5, -0.25], [1.0, 0.0]]
    assert block.time_unix_us.tolist() == [us(2026, 12, 24, 18, 30), us(2026, 12, 24, 18, 31)]


BERLIN = (
    "time,a\n"
    "2026-03-29 01:59:00,1\n"
    "2026-03-29 02:30:00,2\n"
    "2026-03-29 03:00:00,3\n"
    "2026-10-25 02:30:00,4\n"
    "2026-10-25 03:30:00,5\n"
)


def test_hours_that_clocks_skip_or_repeat_are_refused_by_line(write):
    block = one(propose(write(BERLIN), PlanOptions(timezone="Europe/Berlin")))
    assert block.values.tolist() == [[1, 3, 5]]
    assert block.time_unix_us.tolist() == [
        us(2026, 3, 29, 0, 59),
        us(2026, 3, 29, 1),
        us(2026, 10, 25, 2, 30),
    ]
    assert complaints(block) == [
        (3, "the clocks of Europe/Berlin never showed '2026-03-29 02:30:00'"),
        (
            5,
            "the clocks of Europe/Berlin showed '2026-10-25 02:30:00' twice; say --ambiguous earlier or later",
        ),
    ]


@pytest.mark.parametrize(("ambiguous", "hour"), [("earlier", 0), ("later", 1)])
def test_the_repeated_hour_is_settled_when_asked(write, ambiguous, hour):
    block = one(propose(write(BERLIN), PlanOptions(timezone="Europe/Berlin", ambiguous=ambiguous)))
    assert us(2026, 10, 25, hour, 30) in block.time_unix_us.tolist()
    assert [line for line, _ in complaints(block)] == [3]


@given(
    minutes=st.lists(st.integers(0, 60 * 24 * 365), min_size=1, max_size=50),
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    ambiguous=st.sampled_from(["refuse", "earlier", "later"]),
)
def test_local_times_agree_with_the_standard_library(minutes, zone, ambiguous):
    local = np.array(minutes, np.int64) * 60_000_000 + us(2026, 1, 1)
    found = localize(local.copy(), zone, ambiguous)
    for naive_us, utc in zip(local.tolist(), found.tolist(), strict=True):
        naive = (EPOCH + timedelta(microseconds=naive_us)).replace(tzinfo=None)
        passes = {
            (naive.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) - EPOCH)
            // timedelta(microseconds=1)
            for fold in (0, 1)
        }
        real = {
            moment
            for moment in passes
            if (EPOCH + timedelta(microseconds=moment)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
            == naive
        }
        if not real or (len(real) == 2 and ambiguous == "refuse"):
            assert utc == MISSING
        else:
            assert utc == (max(real) if ambiguous == "later" else min(real))


@st.composite
def tables(draw):
    rows = draw(st.integers(0, 60))
    cell = st.one_of(
        st.floats(allow_nan=False, allow_infinity=False).map(repr),
        st.just(""),
        st.sampled_from(["ERR", "n/a", "12,5", "1e3"]),
    )
    return [[draw(cell) for _ in range(2)] for _ in range(rows)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(table=tables(), cut=st.integers(60, 1500), compressed=st.booleans())
def test_any_file_reads_as_the_csv_module_reads_it_whatever_the_blocks(
    tmp_path, monkeypatch, table, cut, compressed
):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["time", "a", "b"])
    # First rows that settle what the columns are.
    head = [["0", "0"]] * (len(table) + 1)
    for second, cells in enumerate(head + table):
        writer.writerow([(EPOCH.replace(year=2020) + timedelta(seconds=second)).isoformat(), *cells])
    data = text.getvalue().encode()
    path = tmp_path / ("f.csv.gz" if compressed else "f.csv")
    path.write_bytes(gzip.compress(data) if compressed else data)
    plan = propose(path)
    monkeypatch.setattr("tidewire_cli.importing.csv_source.BLOCK_BYTES", cut)
    blocks = list(read_blocks(plan))

    expected = []
    for row in csv.reader(io.StringIO(data.decode())):
        if row[0] == "time":
            continue
        values = []
        for value in row[1:]:
            try:
                values.append(float(value))
            except ValueError:
                values.append(math.nan)
        if not all(map(math.isnan, values)):
            expected.append((datetime.fromisoformat(row[0]), values))
    times = [moment for block in blocks for moment in block.time_unix_us.tolist()]
    assert times == [(moment - EPOCH) // timedelta(microseconds=1) for moment, _ in expected]
    got = np.concatenate([block.values for block in blocks], axis=1)
    np.testing.assert_array_equal(got.T, [values for _, values in expected])
    lines = [line for block in blocks for line in block.lines.tolist()]
    assert [
        round(
            (
                datetime.fromisoformat(data.decode().splitlines()[line - 1].split(",")[0]) - moment
            ).total_seconds()
        )
        for line, (moment, _) in zip(lines, expected, strict=True)
    ] == [0] * len(lines)
    for number, block in enumerate(blocks):
        rest = list(read_blocks(plan, block.end))
        assert [one.number for one in rest] == [one.number for one in blocks[number + 1 :]]
        assert [one.time_unix_us.tolist() for one in rest] == [
            one.time_unix_us.tolist() for one in blocks[number + 1 :]
        ]


def test_parquet_in_blocks_and_taken_up_again(tmp_path, monkeypatch):
    monkeypatch.setattr("tidewire_cli.importing.blocks.PARQUET_ROWS", 30)
    path = tmp_path / "p.parquet"
    rows = 100
    table = pa.table(
        {
            "time": pa.array(range(rows), pa.timestamp("s", tz="UTC")),
            "a": [None if n % 7 == 0 else float(n) for n in range(rows)],
            "b": pa.array([n % 2 == 0 for n in range(rows)]),
            "device": pa.array([f"d{n % 3}" for n in range(rows)]).dictionary_encode(),
        }
    )
    pq.write_table(table, path, row_group_size=40)
    plan = propose(path)
    blocks = list(read_blocks(plan))
    assert [moment for block in blocks for moment in block.time_unix_us.tolist()] == [
        n * 1_000_000 for n in range(rows)
    ]
    assert [line for block in blocks for line in block.lines.tolist()] == list(range(1, rows + 1))
    assert [block.devices[i] for block in blocks for i in block.device_index] == [
        f"d{n % 3}" for n in range(rows)
    ]
    for number, block in enumerate(blocks):
        assert [one.number for one in read_blocks(plan, block.end)] == [
            one.number for one in blocks[number + 1 :]
        ]


def test_the_last_moment_becomes_now(write):
    plan = propose(write("time,a\n2016-02-15T00:00:01.5Z,1\n2016-02-15T00:00:00Z,2\n"))
    now = us(2026, 1, 1)
    shifted = shifted_to_now(plan, last_time_us(plan), now)
    assert 0 <= now - last_time_us(shifted) - shifted.shift_us < 1_000_000
    assert now - 1_000_000 < load(shifted).time_unix_us[-1] <= now


def test_a_small_file_as_one_table_in_the_order_of_time(write):
    table = load(
        propose(write("time,a\n2016-02-15T00:00:01Z,1\n2016-02-15T00:00:00Z,2\n2016-02-15T00:00:01Z,3\n"))
    )
    assert table["a"].tolist() == [2, 3]
    assert load(propose(write("time,a\n2016-02-15T00:00:01Z,1\n"), PlanOptions(device="x"))).device == "x"
