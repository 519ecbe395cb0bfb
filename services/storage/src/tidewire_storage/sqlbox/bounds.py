"""Which readings a statement can need at most: times, devices and metrics, from the filters of DuckDB's plan.

The plan is made in the transaction that runs the statement, so `now()` is the same in both. Bounds of several scans
of `readings` are joined to the smallest that holds them all; a filter that is not understood bounds nothing. So more
may be read than is needed, never less, as DuckDB applies its filters to what comes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

_COLUMNS = frozenset({"device", "metric", "time", "value"})
_FLIPPED = {
    "COMPARE_LESSTHAN": "COMPARE_GREATERTHAN",
    "COMPARE_LESSTHANOREQUALTO": "COMPARE_GREATERTHANOREQUALTO",
    "COMPARE_GREATERTHAN": "COMPARE_LESSTHAN",
    "COMPARE_GREATERTHANOREQUALTO": "COMPARE_LESSTHANOREQUALTO",
    "COMPARE_EQUAL": "COMPARE_EQUAL",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """None: not bounded. Times in µs, both included."""

    first_us: int | None = None
    last_us: int | None = None
    devices: frozenset[str] | None = None
    metrics: frozenset[str] | None = None

    def __and__(self, other: "Bounds") -> "Bounds":
        return Bounds(
            _one_or(max, self.first_us, other.first_us),
            _one_or(min, self.last_us, other.last_us),
            _one_or(frozenset.intersection, self.devices, other.devices),
            _one_or(frozenset.intersection, self.metrics, other.metrics),
        )

    def __or__(self, other: "Bounds") -> "Bounds":
        return Bounds(
            _both(min, self.first_us, other.first_us),
            _both(max, self.last_us, other.last_us),
            _both(frozenset.union, self.devices, other.devices),
            _both(frozenset.union, self.metrics, other.metrics),
        )

    def as_json(self) -> dict[str, object]:
        """For an OPEN frame."""
        return {
            "first_us": self.first_us,
            "last_us": self.last_us,
            "devices": None if self.devices is None else sorted(self.devices),
            "metrics": None if self.metrics is None else sorted(self.metrics),
        }


def _one_or(combine: Any, left: Any, right: Any) -> Any:
    if left is None or right is None:
        return right if left is None else left
    return combine(left, right)


def _both(combine: Any, left: Any, right: Any) -> Any:
    return None if left is None or right is None else combine(left, right)


def bounds_of(connection: duckdb.DuckDBPyConnection, statement: str) -> Bounds:
    """The bounds that hold for every scan of `readings` in the statement."""
    rows = connection.execute(f"EXPLAIN (FORMAT JSON) {statement}").fetchall()
    joined: Bounds | None = None
    for plan in json.loads(rows[0][1]):
        for filters in _scans(plan, []):
            bounds = Bounds()
            for text in filters:
                bounds = bounds & _of_text(connection, text)
            joined = bounds if joined is None else joined | bounds
    return Bounds() if joined is None else joined


def _scans(node: dict[str, Any], filters: list[str]) -> Iterator[list[str]]:
    """For each scan that may be one of `readings` the filters right above it."""
    facts = node.get("extra_info") or {}
    name = str(node.get("name", "")).strip()
    if name == "FILTER":
        filters = [*filters, *_texts(facts.get("Expression"))]
    elif "SCAN" in name and not node.get("children"):
        if set(_texts(facts.get("Projections"))) <= _COLUMNS:
            yield [*filters, *_texts(facts.get("Filters"))]
        return
    else:
        filters = []
    for child in node.get("children", ()):
        yield from _scans(child, filters)


def _texts(value: object) -> list[str]:
    return (
        [value]
        if isinstance(value, str)
        else [str(item) for item in value]
        if isinstance(value, list)
        else []
    )


def _of_text(connection: duckdb.DuckDBPyConnection, text: str) -> Bounds:
    answer = connection.execute(
        "SELECT json_serialize_sql(?::VARCHAR)", [f"SELECT 1 WHERE {text}"]
    ).fetchall()
    tree = json.loads(answer[0][0])
    if tree.get("error") or len(tree.get("statements", ())) != 1:
        return Bounds()
    return _of(connection, tree["statements"][0]["node"].get("where_clause") or {})


def _of(connection: duckdb.DuckDBPyConnection, node: dict[str, Any]) -> Bounds:
    kind = node.get("type")
    if kind in ("CONJUNCTION_AND", "CONJUNCTION_OR"):
        joined: Bounds | None = None
        for child in node["children"]:
            bounds = _of(connection, child)
            if joined is None:
                joined = bounds
            else:
                joined = joined & bounds if kind == "CONJUNCTION_AND" else joined | bounds
        return joined or Bounds()
    if kind == "COMPARE_BETWEEN":
        low = _compared(connection, "COMPARE_GREATERTHANOREQUALTO", node["input"], [node["lower"]])
        return low & _compared(connection, "COMPARE_LESSTHANOREQUALTO", node["input"], [node["upper"]])
    if kind == "COMPARE_IN":
        first, *others = node["children"]
        return _compared(connection, "COMPARE_EQUAL", first, others)
    if kind in _FLIPPED:
        if node["left"].get("type") == "COLUMN_REF":
            return _compared(connection, kind, node["left"], [node["right"]])
        return _compared(connection, _FLIPPED[kind], node["right"], [node["left"]])
    return Bounds()


def _compared(
    connection: duckdb.DuckDBPyConnection, kind: str, column: dict[str, Any], values: list[dict[str, Any]]
) -> Bounds:
    names = column.get("column_names") or [""]
    if column.get("type") != "COLUMN_REF" or names[-1] not in _COLUMNS or not values:
        return Bounds()
    if names[-1] == "time":
        moments = [_moment(connection, value) for value in values]
        times = [moment for moment in moments if moment is not None]
        if len(times) != len(moments):
            return Bounds()
        return Bounds(
            None if kind.startswith("COMPARE_LESS") else min(times),
            None if kind.startswith("COMPARE_GREATER") else max(times),
        )
    texts = [_literal(value) for value in values]
    if names[-1] == "value" or kind != "COMPARE_EQUAL" or None in texts:
        return Bounds()
    found = frozenset(text for text in texts if text is not None)
    return Bounds(devices=found) if names[-1] == "device" else Bounds(metrics=found)


def _literal(node: dict[str, Any]) -> str | None:
    literal = node.get("literal") or {}
    return (
        str(literal["text"]) if node.get("class") == "CONSTANT" and literal.get("kind") == "STRING" else None
    )


def _moment(connection: duckdb.DuckDBPyConnection, node: dict[str, Any]) -> int | None:
    if node.get("class") != "CAST" or node["type_expr"].get("type_name") != "TIMESTAMP WITH TIME ZONE":
        return None
    text = _literal(node["child"])
    # Infinity and what is no time bound nothing.
    asked = "SELECT CASE WHEN isfinite(t) THEN epoch_us(t) END FROM (SELECT TRY_CAST(? AS TIMESTAMPTZ) AS t)"
    moment = None if text is None else connection.execute(asked, [text]).fetchall()[0][0]
    return None if moment is None else int(moment)
