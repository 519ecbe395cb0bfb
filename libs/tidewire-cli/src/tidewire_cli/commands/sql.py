"""`tidewire sql`: one SELECT over the tenant's readings, run by storage.

tidewire sql "SELECT device, avg(value) FROM readings WHERE time > now() - INTERVAL 1 DAY GROUP BY device"
tidewire sql - < report.sql                          the statement from standard input
tidewire sql "FROM readings" --to readings.parquet   the result in a file: .parquet, .arrow or .csv
"""

import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidewire_cli.looks import human_value, utc_text
from tidewire_cli.output import Column
from tidewire_cli.session import Session

if TYPE_CHECKING:
    import pyarrow as pa

_PEOPLE_ROWS = 200
_ENDINGS = (".parquet", ".arrow", ".csv")


async def sql(
    session: Session,
    statement: Annotated[
        str, typer.Argument(metavar="STATEMENT", help="One SELECT; -: read it from standard input.")
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="FILE",
            help="Write the result to a file that ends in .parquet, .arrow or .csv.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run one SELECT, in DuckDB's dialect, over the tenant's own readings.

    The tables are readings (device, metric, time, value), devices (id, type, labels, parent, create_time) and
    series (device, metric, first_time, last_time, last_value). Conditions on time, device and metric are what makes
    a statement quick. Ctrl-C ends it.
    """
    from tidewire_client import InvalidArgument

    if to is not None and to.suffix not in _ENDINGS:
        raise InvalidArgument(f"--to {to}: name a file that ends in {', '.join(_ENDINGS)}", field="to")
    text = sys.stdin.read() if statement == "-" else statement
    client = await session.query()
    async with aclosing(client.iterate_sql(text)) as parts:
        table = await _table(parts)
    if to is not None:
        _write(table, to)
        rows = "row" if len(table) == 1 else "rows"
        session.out.done(f"{to}: {len(table):,} {rows}", {"file": str(to), "rows": len(table)})
        return
    shown = table.slice(0, _PEOPLE_ROWS) if session.out.for_people else table
    names = _distinct(table.column_names)
    # Column() takes a dot in a key for a way down; for people the keys are numbers.
    keys = [str(number) for number in range(len(names))] if session.out.for_people else names
    columns = [
        Column(key, name, _look, right=_is_number(table, number))
        for number, (key, name) in enumerate(zip(keys, names, strict=True))
    ]
    session.out.rows(_rows(shown, keys), columns, empty="No rows.")
    if len(table) > len(shown):
        session.out.warn(
            f"The first {len(shown)} of {len(table):,} rows; all with --output csv or --to FILE."
        )


async def _table(parts: AsyncGenerator[bytes]) -> "pa.Table":
    import pyarrow as pa

    data = b"".join([part async for part in parts])
    return pa.ipc.open_stream(data).read_all()


def _distinct(names: list[str]) -> list[str]:
    """Names that occur once, as keys have to: a second `avg` is `avg_2`."""
    found: list[str] = []
    for name in names:
        number, unique = 1, name
        while unique in found:
            number += 1
            unique = f"{name}_{number}"
        found.append(unique)
    return found


def _is_number(table: "pa.Table", number: int) -> bool:
    import pyarrow as pa

    kind = table.schema.field(number).type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _rows(table: "pa.Table", keys: list[str]) -> list[dict[str, Any]]:
    columns = [
        [_plain(value) for value in column.to_pylist(maps_as_pydicts="lossy")] for column in table.columns
    ]
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]


def _plain(value: object) -> object:
    """What JSON has: moments as text in UTC, other values that it does not know as Python writes them."""
    from tidewire_client.times import to_unix_us

    if isinstance(value, datetime):
        return utc_text(to_unix_us(value)) if value.tzinfo is not None else value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _look(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return human_value(value) if isinstance(value, float) else str(value)


def _flat(table: "pa.Table") -> "pa.Table":
    """Maps, lists and structs as JSON, which is what fits in a cell."""
    import json

    import pyarrow as pa

    for number, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            values = table.column(number).to_pylist(maps_as_pydicts="lossy")
            texts = [None if value is None else json.dumps(_plain(value)) for value in values]
            table = table.set_column(number, field.name, pa.array(texts, pa.string()))
    return table


def _write(table: "pa.Table", path: Path) -> None:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, path, compression="zstd")
    elif path.suffix == ".csv":
        import pyarrow.csv as pacsv

        pacsv.write_csv(_flat(table), path)
    else:
        import pyarrow as pa

        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
