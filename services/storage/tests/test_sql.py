"""RunSql: results against plain Python on the same rows, and what is read for them."""

import statistics
from collections.abc import Callable
from typing import Any

import pytest
from sql_rig import SECOND, Sql

from tidewire_storage.application.sql_tables import ScanBounds
from tidewire_storage.sqlbox.bounds import Bounds, bounds_of
from tidewire_storage.sqlbox.child import database


def grouped(readings: list[tuple[str, str, int, float]], key: Callable[..., Any]) -> dict[Any, list[float]]:
    groups: dict[Any, list[float]] = {}
    for reading in readings:
        groups.setdefault(key(*reading), []).append(reading[3])
    return groups


async def test_the_tables_say_what_plain_python_says(sql: Sql) -> None:
    found = await sql.rows(
        "SELECT device, metric, count(*), avg(value), max(value), epoch_us(min(time)) FROM readings GROUP BY ALL"
    )
    groups = grouped(sql.readings, lambda device, metric, *_: (device, metric))
    assert {row[:2]: row[2] for row in found} == {key: len(values) for key, values in groups.items()}
    for device, metric, _, mean, most, _ in found:
        assert mean == pytest.approx(statistics.fmean(groups[device, metric]))
        assert most == max(groups[device, metric])
    assert sql.outcomes[-1] == ("ok", len(sql.readings))

    described = await sql.rows(
        "SELECT id, type, parent, to_json(labels), labels['site'] FROM devices ORDER BY id"
    )
    assert described == [
        ("a-much-longer-name:01", "", "", "{}", None),
        ("b", "pump", "", '{"note":"a \\"b\\" é","site":"north"}', "north"),
        ("pump-1", "pump", "b", '{"site":"south"}', "south"),
    ]
    by_site = await sql.rows(
        "SELECT labels['site'] AS site, count(*) FROM readings r JOIN devices d ON d.id = r.device"
        " WHERE d.type = 'pump' GROUP BY site ORDER BY site"
    )
    assert by_site == [
        (site, len(groups[name, "temp"]) + len(groups[name, "level"]))
        for site, name in (("north", "b"), ("south", "pump-1"))
    ]

    joined = await sql.rows(
        "SELECT s.device, s.metric, s.last_value, epoch_us(s.first_time), count(r.value) FROM series s"
        " JOIN devices d ON d.id = s.device LEFT JOIN readings r ON r.device = s.device AND r.metric = s.metric"
        " GROUP BY ALL"
    )
    for device, metric, last, first_us, count in joined:
        mine = [reading for reading in sql.readings if reading[:2] == (device, metric)]
        assert (last, first_us, count) == (mine[-1][3], mine[0][2], len(mine))


async def test_filters_bound_what_is_read_and_never_the_result(sql: Sql) -> None:
    found = await sql.rows(
        "SELECT device, metric, epoch_us(time), value FROM readings WHERE time >= '2023-11-14 22:14:00+00'"
        " AND time < '2023-11-14 22:15:00+00' AND (device = 'b' OR device IN ('pump-1', 'nowhere'))"
        " AND metric = 'temp' AND value > 0.25"
    )
    low, high = 1_700_000_040 * SECOND, 1_700_000_100 * SECOND
    expected = [
        reading
        for reading in sql.readings
        if low <= reading[2] < high and reading[0] in ("b", "pump-1") and reading[1] == "temp"
    ]
    assert sorted(found) == sorted(reading for reading in expected if reading[3] > 0.25)
    assert sql.scans[-1].devices == {"b", "pump-1", "nowhere"}
    assert sql.scans[-1].metrics == {"temp"}
    assert len(expected) <= sql.outcomes[-1][1] <= len(expected) + 2

    # What is not understood bounds nothing; several scans are bounded together.
    both = await sql.rows(
        "SELECT count(*) FROM readings a JOIN readings b USING (device, time)"
        " WHERE a.metric = 'temp' AND b.metric = 'level' AND NOT (a.time < '2023-11-14 22:14:00+00')"
    )
    pairs = [reading for reading in sql.readings if reading[1] == "level" and reading[2] >= low]
    assert both == [(len(pairs),)]
    assert sql.scans[-1] == ScanBounds(low, None, None, frozenset({"temp", "level"}))


MINUTE = 60 * SECOND


@pytest.mark.parametrize(
    ("condition", "bounds"),
    [
        ("true", Bounds()),
        ("time::DATE = '2023-11-14' OR device = 'b'", Bounds()),
        ("device <> 'b' AND metric LIKE 't%' AND value > 3", Bounds()),
        ("device = 'b' OR time < '1970-01-01 00:01:00+00'", Bounds()),
        ("'1970-01-01 00:01:00+00' <= time", Bounds(first_us=MINUTE)),
        ("time = '1970-01-01 00:01:00+00'", Bounds(MINUTE, MINUTE)),
        ("time > '-infinity' AND metric = 'o''clock'", Bounds(metrics=frozenset({"o'clock"}))),
        (
            "device IN ('a', 'b') AND device <> 'a' OR device = 'c' AND time IS NOT NULL",
            Bounds(devices=frozenset({"a", "b", "c"})),
        ),
    ],
)
def test_bounds_are_those_of_the_plan(condition: str, bounds: Bounds) -> None:
    connection, tables = database(None, 64 << 20)  # type: ignore[arg-type] # nothing is scanned
    found = bounds_of(connection, f"SELECT count(value) FROM readings WHERE {condition}")
    assert found == bounds
    connection.close()
    assert tables.bounds == Bounds()
