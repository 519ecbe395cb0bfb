"""A filter's condition → SQL over the embedded store's tables. Called by store.EmbeddedStore to list and count devices.

Every value is a bind parameter; only our own names are in the text. A list is in the order of ids and starts after the
last id of the page before, so a good plan walks an index in that order and stops after a page:

    sparse    a condition admits few devices: look these up, test the rest, sort their ids
    ordered   a condition has an index that is in order of ids (a label's value, type, state, parent, ancestor): walk it
    walk      otherwise walk all ids, within the bounds that conditions on `name` give

Which one is found by counting what each condition admits, up to a small number.
"""

# ruff: noqa: S608 - the texts are made of our own names; every value is a bind parameter

import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidewire_kit.filter import conditions as c
from tidewire_kit.filter.geometry import box_around
from tidewire_kit.ids import TenantId
from tidewire_registry.adapters.embedded.rows import DEVICE_COLUMNS, qualified

SPARSE = 4_096
"""Up to so many candidates are looked up one by one; more are rather met on the way."""

Parameters = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Sql:
    """A piece of SQL and its parameters."""

    text: str
    parameters: Parameters = ()


TRUE = Sql("1")
_COLUMNS = qualified(DEVICE_COLUMNS, "d")
_TEXT_COLUMNS = {c.TextField.NAME: "id", c.TextField.TYPE: "type", c.TextField.PARENT: "parent"}
_NUMBER_COLUMNS = {
    c.NumberField.LATITUDE: "latitude",
    c.NumberField.LONGITUDE: "longitude",
    c.NumberField.CREATE_TIME: "created_us",
    c.NumberField.UPDATE_TIME: "updated_us",
}
_UID_OF = "(SELECT uid FROM devices WHERE tenant = ? AND id = ?)"
_OPERATORS = {operator: str(operator) for operator in c.Operator}


def page_query(
    connection: sqlite3.Connection, tenant: TenantId, condition: c.Condition | None, after: str, limit: int
) -> Sql:
    """A SELECT of DEVICE_COLUMNS, by id, of at most `limit` devices after `after`."""
    where = test(tenant, condition)
    sparse = _sparse(connection, tenant, condition)
    if sparse is not None:
        # Ids are sorted alone, and rows fetched for one page only.
        return Sql(
            f"""SELECT {_COLUMNS} FROM (
                SELECT d.id AS id FROM (SELECT DISTINCT id FROM ({sparse.text})) AS k
                CROSS JOIN devices AS d INDEXED BY devices_id ON d.tenant = ? AND d.id = k.id
                WHERE k.id > ? AND {where.text} ORDER BY d.id LIMIT ?
            ) AS p CROSS JOIN devices AS d INDEXED BY devices_id ON d.tenant = ? AND d.id = p.id ORDER BY p.id""",
            (*sparse.parameters, tenant, after, *where.parameters, limit, tenant),
        )
    source, order = _source(tenant, condition, after)
    return Sql(
        f"SELECT {_COLUMNS} FROM {source.text} AND {where.text} ORDER BY {order} LIMIT ?",
        (*source.parameters, *where.parameters, limit),
    )


def count_query(connection: sqlite3.Connection, tenant: TenantId, condition: c.Condition) -> Sql:
    """A SELECT of the number of devices that the condition admits."""
    where = test(tenant, condition)
    sparse = _sparse(connection, tenant, condition)
    if sparse is not None:
        return Sql(
            f"""SELECT count(*) FROM (SELECT DISTINCT id FROM ({sparse.text})) AS k
            CROSS JOIN devices AS d INDEXED BY devices_id ON d.tenant = ? AND d.id = k.id WHERE {where.text}""",
            (*sparse.parameters, tenant, *where.parameters),
        )
    source, _ = _source(tenant, condition, "")
    text = f"SELECT count(*) FROM {source.text} AND {where.text}"
    return Sql(text, (*source.parameters, *where.parameters))


def test(tenant: TenantId, condition: c.Condition | None) -> Sql:
    """An expression over the row `d`: 1 or 0, never NULL, since NOT of it must mean what it says."""
    match condition:
        case None:
            return TRUE
        case c.And(operands) | c.Or(operands):
            parts = [test(tenant, operand) for operand in operands]
            word = " AND " if isinstance(condition, c.And) else " OR "
            parameters = tuple(p for part in parts for p in part.parameters)
            return Sql(f"({word.join(part.text for part in parts)})", parameters)
        case c.Not(operand):
            inner = test(tenant, operand)
            return Sql(f"NOT {inner.text}", inner.parameters)
        case c.TextIs(field, operator, value):
            return Sql(f"(d.{_TEXT_COLUMNS[field]} {_OPERATORS[operator]} ?)", (value,))
        case c.TextStartsWith(field, prefix):
            return _starts(f"d.{_TEXT_COLUMNS[field]}", prefix)
        case c.LabelIs(key, operator, value):
            text = f"ifnull(json_extract(d.labels, ?) {_OPERATORS[operator]} ?, 0)"
            return Sql(text, (f'$."{key}"', value))
        case c.LabelStartsWith(key, prefix):
            if not prefix:
                return Sql("(json_extract(d.labels, ?) IS NOT NULL)", (f'$."{key}"',))
            low, high = prefix, _successor(prefix)
            text = "ifnull(json_extract(d.labels, ?) >= ?, 0)"
            lower = Sql(text, (f'$."{key}"', low))
            if not high:
                return lower
            text = f"({lower.text} AND json_extract(d.labels, ?) < ?)"
            return Sql(text, (*lower.parameters, f'$."{key}"', high))
        case c.NumberIs(field, operator, number):
            return Sql(f"ifnull(d.{_NUMBER_COLUMNS[field]} {_OPERATORS[operator]} ?, 0)", (number,))
        case c.HasLocation():
            return Sql("(d.latitude IS NOT NULL)")
        case c.StateIs(state):
            return Sql("(d.state = ?)", (int(state),))
        case c.HasAncestor(device_id):
            return Sql(
                f"EXISTS (SELECT 1 FROM ancestry AS a WHERE a.tenant = ? AND a.id = d.id AND a.ancestor = {_UID_OF})",
                (tenant, tenant, device_id),
            )
        case c.WithinBox():
            box = _box(condition, "d.")
            return Sql(f"ifnull({box.text}, 0)", box.parameters)
        case c.WithinRadius(latitude, longitude, meters):
            box = _box(box_around(latitude, longitude, meters), "d.")
            text = f"ifnull({box.text} AND distance_meters(d.latitude, d.longitude, ?, ?) <= ?, 0)"
            return Sql(text, (*box.parameters, latitude, longitude, meters))


# Plans


def _sparse(connection: sqlite3.Connection, tenant: TenantId, condition: c.Condition | None) -> Sql | None:
    """The smallest set of ids outside which the condition is false, when it is small."""
    best, best_count = None, SPARSE
    for conjunct in _conjuncts(condition):
        found = _candidates(tenant, conjunct)
        if found is None:
            continue
        probe = f"SELECT count(*) FROM (SELECT 1 FROM ({found.text}) LIMIT ?)"
        (count,) = connection.execute(probe, (*found.parameters, best_count)).fetchone()
        if count < best_count:
            best, best_count = found, count
    return best


def _candidates(tenant: TenantId, condition: c.Condition) -> Sql | None:
    """A SELECT of ids, perhaps repeated, outside which the condition is false; None when no index has it."""
    match condition:
        case c.And(operands):
            found = [s for s in (_candidates(tenant, operand) for operand in operands) if s is not None]
            return found[0] if found else None
        case c.Or(operands):
            parts = [_candidates(tenant, operand) for operand in operands]
            some = [part for part in parts if part is not None]
            if len(some) < len(parts):
                return None
            text = " UNION ALL ".join(f"SELECT id FROM ({part.text})" for part in some)
            return Sql(text, tuple(p for part in some for p in part.parameters))
        case c.LabelIs(key, operator, value) if operator is not c.Operator.NE:
            text = f"SELECT id FROM labels WHERE tenant = ? AND key = ? AND value {_OPERATORS[operator]} ?"
            return Sql(text, (tenant, key, value))
        case c.LabelStartsWith(key, prefix):
            bounds = _starts("value", prefix) if prefix else TRUE
            text = f"SELECT id FROM labels WHERE tenant = ? AND key = ? AND {bounds.text}"
            return Sql(text, (tenant, key, *bounds.parameters))
        case c.TextIs(field, operator, value) if operator is not c.Operator.NE:
            if field is c.TextField.PARENT and (operator is not c.Operator.EQ or not value):
                return None
            column = _TEXT_COLUMNS[field]
            rest = " AND parent != ''" if field is c.TextField.PARENT else ""
            compare = f"{column} {_OPERATORS[operator]} ?{rest}"
            text = f"SELECT id FROM devices INDEXED BY devices_{column} WHERE tenant = ? AND {compare}"
            return Sql(text, (tenant, value))
        case c.TextStartsWith(field, prefix) if prefix:
            column = _TEXT_COLUMNS[field]
            bounds = _starts(column, prefix)
            rest = " AND parent != ''" if field is c.TextField.PARENT else ""
            text = f"SELECT id FROM devices INDEXED BY devices_{column} WHERE tenant = ? AND {bounds.text}"
            return Sql(text + rest, (tenant, *bounds.parameters))
        case c.StateIs(state):
            text = "SELECT id FROM devices INDEXED BY devices_state WHERE tenant = ? AND state = ?"
            return Sql(text, (tenant, int(state)))
        case c.HasAncestor(device_id):
            text = f"SELECT id FROM ancestry WHERE tenant = ? AND ancestor = {_UID_OF}"
            return Sql(text, (tenant, tenant, device_id))
        case c.WithinRadius(latitude, longitude, meters):
            return _candidates(tenant, box_around(latitude, longitude, meters))
        case c.WithinBox():
            box = _box(condition, "")
            index = "devices INDEXED BY devices_place"
            text = f"SELECT id FROM {index} WHERE tenant = ? AND latitude IS NOT NULL AND {box.text}"
            return Sql(text, (tenant, *box.parameters))
    return None


def _source(tenant: TenantId, condition: c.Condition | None, after: str) -> tuple[Sql, str]:
    """(`table WHERE ...`, the column that is in order of ids)."""
    low, high = after, ""
    strict = ">"
    for conjunct in _conjuncts(condition):
        match conjunct:
            case c.LabelIs(key, c.Operator.EQ, value):
                text = (
                    "labels AS k CROSS JOIN devices AS d INDEXED BY devices_id ON d.tenant = k.tenant AND d.id = k.id"
                    " WHERE k.tenant = ? AND k.key = ? AND k.value = ? AND k.id > ?"
                )
                return Sql(text, (tenant, key, value, after)), "k.id"
            case c.HasAncestor(device_id):
                text = (
                    "ancestry AS k CROSS JOIN devices AS d INDEXED BY devices_id ON d.tenant = k.tenant AND d.id = k.id"
                    f" WHERE k.tenant = ? AND k.ancestor = {_UID_OF} AND k.id > ?"
                )
                return Sql(text, (tenant, tenant, device_id, after)), "k.id"
            case c.TextIs(c.TextField.TYPE, c.Operator.EQ, value):
                text = "devices AS d INDEXED BY devices_type WHERE d.tenant = ? AND d.type = ? AND d.id > ?"
                return Sql(text, (tenant, value, after)), "d.id"
            case c.TextIs(c.TextField.PARENT, c.Operator.EQ, value) if value:
                text = (
                    "devices AS d INDEXED BY devices_parent"
                    " WHERE d.tenant = ? AND d.parent != '' AND d.parent = ? AND d.id > ?"
                )
                return Sql(text, (tenant, value, after)), "d.id"
            case c.StateIs(state):
                text = "devices AS d INDEXED BY devices_state WHERE d.tenant = ? AND d.state = ? AND d.id > ?"
                return Sql(text, (tenant, int(state), after)), "d.id"
            case c.TextStartsWith(c.TextField.NAME, prefix) if prefix:
                if prefix > low:
                    low, strict = prefix, ">="
                high = _successor(prefix)
            case c.TextIs(c.TextField.NAME, c.Operator.GE | c.Operator.GT, value) if value > low:
                low, strict = value, ">="
    bound = " AND d.id < ?" if high else ""
    text = f"devices AS d INDEXED BY devices_id WHERE d.tenant = ? AND d.id {strict} ?{bound}"
    return Sql(text, (tenant, low, high) if high else (tenant, low)), "d.id"


def _conjuncts(condition: c.Condition | None) -> Sequence[c.Condition]:
    if condition is None:
        return ()
    return condition.operands if isinstance(condition, c.And) else (condition,)


def _starts(expression: str, prefix: str) -> Sql:
    if not prefix:
        return Sql(f"({expression} != '')")
    high = _successor(prefix)
    if not high:
        return Sql(f"({expression} >= ?)", (prefix,))
    return Sql(f"({expression} >= ? AND {expression} < ?)", (prefix, high))


def _successor(prefix: str) -> str:
    """The least text greater than every text that starts with `prefix`; empty when there is none."""
    while prefix:
        code = ord(prefix[-1]) + 1
        if code <= sys.maxunicode:
            # Surrogates are no characters: SQLite's UTF-8 has none.
            return prefix[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
        prefix = prefix[:-1]
    return ""


def _box(box: c.WithinBox, table: str) -> Sql:
    if box.west <= box.east:
        east_west = f"{table}longitude BETWEEN ? AND ?"
    else:
        east_west = f"({table}longitude >= ? OR {table}longitude <= ?)"
    text = f"({table}latitude BETWEEN ? AND ? AND {east_west})"
    return Sql(text, (box.south, box.north, box.west, box.east))
