"""`tidewire event`: what happened on devices, published by hand and listed."""

import base64
import mimetypes
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidewire_cli.given import parse_moment, parse_span
from tidewire_cli.looks import utc_text
from tidewire_cli.output import Column
from tidewire_cli.session import REFUSED, Session, command

if TYPE_CHECKING:
    from tidewire_client import Event

app = typer.Typer(help="Events: log lines, changes of state, alarms of devices.", no_args_is_help=True)

_SEVERITY = "TRACE, DEBUG, INFO, WARN, ERROR or FATAL."
_SHOWN_CHARACTERS = 60


@command(app, "publish")
async def publish(
    session: Session,
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Device id.", show_default=False)],
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="Such as door.opened.", show_default=False)],
    severity: Annotated[str, typer.Option("--severity", metavar="LEVEL", help=_SEVERITY)] = "INFO",
    body: Annotated[
        str | None, typer.Option("--body", metavar="TEXT", help="The payload.", show_default=False)
    ] = None,
    file: Annotated[
        str,
        typer.Option(
            "--file", "-f", metavar="PATH", help="The payload from a file; - for input.", show_default=False
        ),
    ] = "",
    content_type: Annotated[
        str,
        typer.Option(
            "--content-type",
            metavar="TYPE",
            help="Media type of the payload; otherwise by the file's name.",
            show_default=False,
        ),
    ] = "",
    at: Annotated[
        str,
        typer.Option(
            "--time",
            metavar="TIME",
            help="When: ISO 8601 (UTC without a zone), -10m; now.",
            show_default=False,
        ),
    ] = "",
    event_id: Annotated[
        str,
        typer.Option(
            "--id",
            metavar="ID",
            help="Of the same device, time and id one event is kept.",
            show_default=False,
        ),
    ] = "",
    create: Annotated[bool, typer.Option("--create", help="Create the device if there is none.")] = False,
) -> None:
    """Publish one event, and wait until it is durable."""
    from tidewire_client import AsyncAdminClient, AsyncEventClient, Event, InvalidArgument

    if body is not None and file:
        raise InvalidArgument("give --body or --file, not both", field="file")
    data, found_type = _payload(body, file)
    event = Event(
        device,
        kind,
        parse_moment(at, "--time") if at else None,
        severity,
        content_type or found_type,
        data,
        event_id,
    )
    connection = await session.tenant_connection()
    if create:
        await AsyncAdminClient(connection).ensure_devices([device])
    result = await AsyncEventClient(connection).publish([event])
    for refusal in result.refusals:
        remedy = "; --create does that" if refusal.reason == "DEVICE_UNKNOWN" and not create else ""
        session.out.error(refusal.reason, f"{refusal.message}{remedy}", REFUSED)
        session.exit_code = REFUSED
    session.out.data(
        {
            "device": device,
            "accepted_events": result.accepted,
            "refusals": [{"reason": one.reason, "message": one.message} for one in result.refusals],
        }
    )
    if not result.refusals:
        session.out.text("The event is durable.")


@command(app, "list")
async def list_(
    session: Session,
    device: Annotated[
        str,
        typer.Argument(
            metavar="DEVICE", help="Device id, or several with commas; none: all.", show_default=False
        ),
    ] = "",
    kind: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="Only this type.", show_default=False)
    ] = "",
    severity: Annotated[
        str, typer.Option("--severity", metavar="LEVEL", help=f"At least: {_SEVERITY}", show_default=False)
    ] = "",
    last: Annotated[
        str,
        typer.Option(
            "--last", metavar="SPAN", help="From so long ago, such as 1h or 7d.", show_default=False
        ),
    ] = "",
    start: Annotated[
        str, typer.Option("--start", metavar="TIME", help="From here: ISO 8601 or -2h.", show_default=False)
    ] = "",
    end: Annotated[
        str, typer.Option("--end", metavar="TIME", help="Up to here, exclusive.", show_default=False)
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 100,
) -> None:
    """Show events, newest first."""
    from tidewire_client import AsyncEventClient, InvalidArgument

    if start and last:
        raise InvalidArgument("give --last or --start, not both", field="last")
    now = datetime.now(UTC)
    since = now - parse_span(last, "--last") if last else None
    if start:
        since = parse_moment(start, "--start", now)
    events = await AsyncEventClient(await session.tenant_connection()).list(
        [name for name in device.split(",") if name],
        type=kind,
        min_severity=severity,
        start=since,
        end=parse_moment(end, "--end", now) if end else None,
        limit=limit,
    )
    session.out.rows(
        [_plain(event) for event in events],
        (
            Column("time", "TIME"),
            Column("device", "DEVICE"),
            Column("severity", "SEVERITY"),
            Column("type", "TYPE"),
            Column("content_type", "CONTENT"),
            Column("body", "BODY", _one_line),
        ),
        empty="No events.",
    )


def _payload(body: str | None, file: str) -> tuple[bytes, str]:
    """(bytes, media type) of what was given."""
    from tidewire_client import InvalidArgument

    if body is not None:
        return body.encode(), "text/plain"
    if file == "-":
        return sys.stdin.buffer.read(), "application/octet-stream"
    if not file:
        return b"", ""
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"--file: {file}: {error.strerror}", field="file") from None
    return data, mimetypes.guess_type(file)[0] or "application/octet-stream"


def _plain(event: "Event") -> dict[str, Any]:
    """For programs; a body that is no text is given as `body_base64`."""
    assert isinstance(event.time, int)
    plain: dict[str, Any] = {
        "device": event.device,
        "type": event.type,
        "time": utc_text(event.time),
        "severity": event.severity,
        "content_type": event.content_type,
        "event_id": event.event_id,
        "receive_time": utc_text(event.receive_time_unix_us),
    }
    try:
        plain["body"] = event.body.decode()
    except UnicodeDecodeError:
        plain["body_base64"] = base64.b64encode(event.body).decode()
    return plain


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"
