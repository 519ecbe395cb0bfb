"""Whether a statement may run: one, a SELECT, and naming nothing but the tenant's tables. DuckDB's parser reads it.

The walls are the process (`jail`) and DuckDB's own settings. This check is for clear words before anything runs, and
for what reads the engine itself: its catalog, its settings, raw pointers of `arrow_scan`.
"""

import json
from collections.abc import Iterator
from typing import Any

import duckdb

TABLES = ("readings", "devices", "series")
_TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "json_each", "json_tree", "repeat"})
_FUNCTIONS = frozenset({"current_setting", "getenv", "write_log", "which_secret", "sleep_ms"})
"""Of the scalar functions those that are refused."""
_SYSTEM = ("duckdb_", "pragma_", "sqlite_", "pg_", "information_schema")


class Refused(Exception):
    """The statement is not run; the text says why and what to write instead."""


def checked(connection: duckdb.DuckDBPyConnection, text: str) -> str:
    """The one statement in `text`. Raises Refused, and duckdb.Error where the text is not SQL."""
    statements = connection.extract_statements(text)
    if len(statements) != 1:
        raise Refused(f"there are {len(statements)} statements; send one SELECT")
    (statement,) = statements
    if statement.type != duckdb.StatementType.SELECT:
        raise Refused(
            f"{statement.type.name} is not allowed; only SELECT is, as readings are changed by nobody here"
        )
    answer = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [statement.query]).fetchall()[0][0]
    tree = json.loads(answer)
    if tree.get("error") or len(tree.get("statements", ())) != 1:
        raise Refused("the statement cannot be checked; write it as one plain SELECT")
    nodes = list(_nodes(tree))
    named = {name.lower() for node in nodes for name in _ctes(node)}
    for name in named:
        if name.startswith(_SYSTEM) or name in TABLES:
            raise Refused(f"WITH {name}: a table of the system has that name; choose another")
    for node in nodes:
        _check(node, named)
    return str(statement.query)


def _check(node: dict[str, Any], named: set[str]) -> None:
    kind = node.get("type")
    if kind == "BASE_TABLE":
        table = str(node["table_name"]).lower()
        place = (str(node.get("catalog_name") or ""), str(node.get("schema_name") or "").lower())
        ours = table in TABLES and place[0] in ("", "memory") and place[1] in ("", "main")
        if not ours and not (table in named and place == ("", "")):
            written = ".".join(part for part in (*place, str(node["table_name"])) if part)
            raise Refused(f"there is no table {written}; the tables are {', '.join(TABLES)}")
    elif kind == "TABLE_FUNCTION":
        name = str(node.get("function", {}).get("function_name", "")).lower()
        if name not in _TABLE_FUNCTIONS:
            allowed = ", ".join(sorted(_TABLE_FUNCTIONS))
            raise Refused(
                f"the table function {name} is not allowed; select from {', '.join(TABLES)} or {allowed}"
            )
    elif kind == "SHOW_REF" and node.get("show_type") not in ("DESCRIBE", "SUMMARY"):
        raise Refused("SHOW is not allowed; DESCRIBE and SUMMARIZE a table or a SELECT")
    elif kind == "SHOW_REF" and not node.get("query"):
        table = str(node.get("table_name", "")).strip('"').lower()
        if table not in TABLES:
            raise Refused(f"there is no table {table}; the tables are {', '.join(TABLES)}")
    if node.get("class") == "FUNCTION" and str(node.get("function_name", "")).lower() in _FUNCTIONS:
        raise Refused(f"the function {node['function_name']} is not allowed")


def _ctes(node: dict[str, Any]) -> Iterator[str]:
    for entry in (node.get("cte_map") or {}).get("map", ()):
        yield str(entry["key"])
    if node.get("type") in ("RECURSIVE_CTE_NODE", "CTE_NODE") and node.get("cte_name"):
        yield str(node["cte_name"])


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree, however deep it is."""
    waiting = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
