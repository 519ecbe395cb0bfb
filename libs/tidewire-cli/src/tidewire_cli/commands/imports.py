"""`tidewire import`: files of readings, with a proposal to look at before, progress, and an account by line after."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tidewire_cli.given import parse_pairs
from tidewire_cli.looks import counted, human_count, human_span, utc_text
from tidewire_cli.output import Column
from tidewire_cli.session import REFUSED, Session

if TYPE_CHECKING:
    from tidewire_cli.importing import ImportPlan, ImportReport

_SHOWN_PROBLEMS = 20


async def import_(
    session: Session,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="CSV (also .gz, .bz2, .xz, .zst) or Parquet.", show_default=False
        ),
    ],
    device: Annotated[
        str,
        typer.Option(
            "--device", help="Device of all rows; by default named as the file.", show_default=False
        ),
    ] = "",
    device_column: Annotated[
        str, typer.Option("--device-column", help="Column that names each row's device.", show_default=False)
    ] = "",
    time_column: Annotated[
        str, typer.Option("--time-column", help="Column of the times.", show_default=False)
    ] = "",
    time_format: Annotated[
        str,
        typer.Option(
            "--time-format", help="strptime format of times, such as '%d/%m/%Y %H:%M'.", show_default=False
        ),
    ] = "",
    timezone: Annotated[
        str,
        typer.Option(
            "--timezone",
            metavar="ZONE",
            help="Zone of times that name none, such as Europe/Berlin or UTC.",
            show_default=False,
        ),
    ] = "",
    ambiguous: Annotated[
        Literal["refuse", "earlier", "later"],
        typer.Option(help="What a local time means that the clocks show twice, when summer time ends."),
    ] = "refuse",
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="COLUMN=NAME",
            help="Name of a column's metric; may be repeated.",
            show_default=False,
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            "--skip", metavar="COLUMN", help="Column to leave out; may be repeated.", show_default=False
        ),
    ] = None,
    shift_to_now: Annotated[
        bool,
        typer.Option("--shift-to-now/--keep-times", help="Move times so that the last one is now."),
    ] = False,
    encoding: Annotated[
        str, typer.Option("--encoding", help="Of a CSV file, when it is not UTF-8.", show_default=False)
    ] = "",
    no_create: Annotated[bool, typer.Option("--no-create", help="Create no devices.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Start over, even if the file has been imported.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Import a file of readings.

    Proposes which column becomes which metric, asks (on a terminal), and sends the rows. Interrupted, it goes on where
    it was when run again; finished, it does nothing when run again. Rows that are not stored are reported by line, and
    the status is then 4.
    """
    from tidewire_cli.contexts import state_home
    from tidewire_cli.importing import ImportProgress, PlanOptions, import_file, propose
    from tidewire_client import TidewireError

    plan = propose(
        file,
        PlanOptions(
            time_column=time_column,
            time_format=time_format,
            timezone=timezone,
            ambiguous=ambiguous,
            device=device,
            device_column=device_column,
            metrics=parse_pairs(metric or [], "--metric", "'Temp (C)=temperature'"),
            skip=tuple(skip or ()),
            encoding=encoding,
        ),
    )
    if session.out.for_people:
        _show_plan(session, plan, shift_to_now=shift_to_now)
    if dry_run:
        session.out.data(_plan_data(plan))
        return
    if session.out.for_people and sys.stdin.isatty():
        session.confirm("Import it so?", yes=yes)
    connection = await session.tenant_connection()
    with _progress(session, plan) as show:

        def on_progress(progress: ImportProgress) -> None:
            show(progress.done, progress.total, progress.accepted, progress.refused, progress.seconds)

        try:
            report = await import_file(
                connection,
                plan,
                state_dir=state_home() / "imports",
                shift_to_now=shift_to_now,
                create_devices=not no_create,
                again=again,
                on_progress=on_progress,
            )
        except TidewireError:
            session.out.note("What has been acknowledged is kept; the same command goes on from there.")
            raise
    _tell(session, plan, report)


def _show_plan(session: Session, plan: "ImportPlan", *, shift_to_now: bool) -> None:
    """The proposal, on standard error: the answer is what becomes of it."""
    from rich.table import Table

    console = session.out.console(stderr=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("COLUMN", "BECOMES", "UNIT", "SUCH AS"):
        table.add_column(heading, overflow="fold")
    zone = plan.time.timezone or {"zoned": "as written", "epoch": "UTC, a number"}.get(plan.time.kind, "")
    moved = ", moved so that the last is now" if shift_to_now else ""
    rows: list[tuple[str, str, str, str]] = [
        (plan.time.heading, f"the time ({zone}{moved})", "", plan.time.sample)
    ]
    if plan.device_heading:
        rows.append((plan.device_heading, "the device", "", ""))
    rows += [
        (
            column.heading,
            f"{column.metric}{' (1 and 0)' if column.boolean else ''}",
            column.unit,
            column.sample,
        )
        for column in plan.columns
    ]
    rows += [(heading, f"– ({why})", "", "") for heading, why in plan.skipped]
    from rich.markup import escape

    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    if plan.device:
        console.print(f"All rows are of the device {plan.device}.")


def _plan_data(plan: "ImportPlan") -> dict[str, Any]:
    return {
        "file": str(plan.path),
        "time": {"column": plan.time.heading, "kind": plan.time.kind, "timezone": plan.time.timezone},
        "device": plan.device,
        "device_column": plan.device_heading,
        "metrics": [
            {"column": column.heading, "metric": column.metric, "unit": column.unit}
            for column in plan.columns
        ],
        "skipped": [{"column": heading, "why": why} for heading, why in plan.skipped],
    }


class _progress:  # noqa: N801 - used as a with-statement's function
    """A progress bar on standard error, when that is a terminal."""

    def __init__(self, session: Session, plan: "ImportPlan") -> None:
        self._bar: Any = None
        if session.out.for_people and sys.stderr.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn(plan.path.name),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
                console=session.out.console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=None, text="")

    def __enter__(self) -> "_progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, accepted: int, refused: int, seconds: float) -> None:
        if self._bar is not None:
            text = f"{human_count(accepted)} readings, {human_count(accepted / max(seconds, 0.001))}/s"
            if refused:
                text += f", {human_count(refused)} refused"
            self._bar.update(self._task, completed=done, total=total or None, text=text)


def _tell(session: Session, plan: "ImportPlan", report: "ImportReport") -> None:
    refused = sum(report.refused.values())
    data = {
        "file": str(plan.path),
        "already_done": report.already_done,
        "resumed_rows": report.resumed_rows,
        "rows": report.rows,
        "accepted_readings": report.accepted,
        "refused_readings": refused,
        "refused_by_reason": dict(report.refused),
        "unreadable": report.unreadable,
        "devices": len(report.devices),
        "first_time": utc_text(report.first_time_us) if report.first_time_us is not None else None,
        "last_time": utc_text(report.last_time_us) if report.last_time_us is not None else None,
        "seconds": round(report.seconds, 3),
        "problems": [
            {"line": one.line, "reason": one.reason, "message": one.message}
            for one in sorted(report.problems, key=lambda one: one.line)
        ],
    }
    if not session.out.for_people:
        session.out.data(data)
    elif report.already_done:
        print(
            f"{plan.path.name} has been imported ({report.state.rows:,} rows); nothing to do. "
            "Start over with --again."
        )
    else:
        speed = human_count(report.accepted / max(report.seconds, 0.001))
        resumed = f" after {report.resumed_rows:,} rows of an earlier run" if report.resumed_rows else ""
        print(
            f"Imported {counted(report.accepted, 'reading')} in {counted(report.rows, 'row')}{resumed}, "
            f"{human_span(report.seconds)}, {speed} readings/s."
        )
        if report.accepted and report.first_time_us is not None and report.last_time_us is not None:
            print(f"From {utc_text(report.first_time_us)} to {utc_text(report.last_time_us)}.")
        _tell_problems(session, report)
        if report.accepted:
            session.out.note(f"Next: tidewire query {plan.device or min(report.devices, default='')}")
    if refused or report.unreadable:
        session.exit_code = REFUSED


def _tell_problems(session: Session, report: "ImportReport") -> None:
    if not report.problem_count:
        return
    print(f"\nNot stored: {report.problem_count:,} rows or cells.", file=sys.stderr)
    console = session.out.console(stderr=True)
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in (Column("line", "LINE"), Column("reason", "REASON"), Column("message", "WHY")):
        table.add_column(column.heading, overflow="fold", justify="right" if column.key == "line" else "left")
    shown = sorted(report.problems, key=lambda one: one.line)[:_SHOWN_PROBLEMS]
    from rich.markup import escape

    for one in shown:
        table.add_row(f"{one.line:,}", one.reason, escape(one.message))
    console.print(table)
    if report.problem_count > len(shown):
        print(f"… and {report.problem_count - len(shown):,} more; --output json lists them.", file=sys.stderr)
