"""`tidewire publish` and `tidewire simulate`: readings by hand, and by a fleet that does not exist."""

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from tidewire_cli.given import parse_moment, parse_number, parse_pairs, parse_span
from tidewire_cli.looks import human_count, human_span, sparkline
from tidewire_cli.session import FAILED, REFUSED, Session

if TYPE_CHECKING:
    from rich.table import Table

    from tidewire_client import AsyncTelemetryPublisher, BatchResult


async def publish(
    session: Session,
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Device id.", show_default=False)],
    values: Annotated[
        list[str],
        typer.Argument(metavar="METRIC=VALUE...", help="Such as temperature=21.5.", show_default=False),
    ],
    at: Annotated[
        str,
        typer.Option(
            "--time",
            metavar="TIME",
            help="When: ISO 8601 (UTC without a zone), -10m; now.",
            show_default=False,
        ),
    ] = "",
    create: Annotated[bool, typer.Option("--create", help="Create the device if there is none.")] = False,
) -> None:
    """Publish one row of readings, and wait until it is durable."""
    from tidewire_client import AsyncAdminClient, AsyncTelemetryPublisher
    from tidewire_client.times import now_us, to_unix_us

    pairs = parse_pairs(values, "METRIC=VALUE", "temperature=21.5")
    numbers = {metric: parse_number(text, metric) for metric, text in pairs.items()}
    moment = to_unix_us(parse_moment(at, "--time")) if at else now_us()
    connection = await session.tenant_connection()
    if create:
        await AsyncAdminClient(connection).ensure_devices([device])
    results: list[BatchResult] = []
    async with AsyncTelemetryPublisher(
        connection,
        streaming=False,
        count=False,
        retry_seconds=connection.retry_seconds,
        on_result=results.append,
        on_refusal=None,
    ) as publisher:
        await publisher.add(device, moment, numbers)
        await publisher.flush()
    for result in results:
        if result.error is not None:
            raise result.error
    accepted = sum(result.accepted_readings for result in results)
    refusals = [refusal for result in results for refusal in result.refusals]
    for refusal in refusals:
        remedy = "; --create does that" if refusal.reason == "DEVICE_UNKNOWN" and not create else ""
        session.out.error(refusal.reason, f"{refusal.message}{remedy}", REFUSED)
    session.out.data(
        {
            "device": device,
            "accepted_readings": accepted,
            "refused_readings": sum(refusal.readings for refusal in refusals),
            "refusals": [{"reason": one.reason, "message": one.message} for one in refusals],
        }
    )
    if refusals:
        session.exit_code = REFUSED
    else:
        session.out.text(f"{accepted} {'reading is' if accepted == 1 else 'readings are'} durable.")


async def simulate(
    session: Session,
    devices: Annotated[int, typer.Option("--devices", "-n", min=1, max=1_000_000, help="How many.")] = 200,
    every: Annotated[
        str, typer.Option("--every", metavar="SPAN", help="From one row of a device to its next.")
    ] = "1s",
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", min=0.1, help="Readings per second in all, instead of --every.", show_default=False
        ),
    ] = None,
    duration: Annotated[
        str,
        typer.Option(
            "--duration", metavar="SPAN", help="How long; without it until Ctrl-C.", show_default=False
        ),
    ] = "",
    prefix: Annotated[str, typer.Option("--prefix", help="Devices are PREFIX-0001 and so on.")] = "sim",
    seed: Annotated[int, typer.Option("--seed", help="Another seed, another fleet.")] = 1,
    no_create: Annotated[bool, typer.Option("--no-create", help="The devices exist.")] = False,
) -> None:
    """Play a fleet of devices: five metrics each with daily cycles, counters, noise and a few losses."""
    from tidewire_cli.fleet import Fleet
    from tidewire_cli.fleet import simulate as run_fleet
    from tidewire_client import AsyncAdminClient, AsyncTelemetryPublisher, TidewireError, new_device

    seconds = parse_span(duration, "--duration").total_seconds() if duration else None
    interval = parse_span(every, "--every").total_seconds()
    fleet = Fleet(devices, prefix=prefix, seed=seed)
    if rate is not None:
        interval = devices * len(fleet.metrics) / rate
    connection = await session.tenant_connection()
    if not no_create:
        meter = new_device(type="meter", labels={"simulated": "true"})
        await AsyncAdminClient(connection).batch_create_devices(
            dict.fromkeys(fleet.device_ids, meter), allow_existing=True
        )
    session.out.note(
        f"{devices:,} devices, {human_count(devices * len(fleet.metrics) / interval)} readings/s"
        + (f", for {human_span(seconds)}." if seconds else "; Ctrl-C ends it.")
    )
    publisher = AsyncTelemetryPublisher(
        connection,
        count=False,
        linger_seconds=0.02,
        buffer_readings=max(200_000, devices * 20),
        on_result=lambda _: None,
        on_refusal=None,
    )
    await publisher.start()
    began = time.monotonic()
    board = _Board(session, publisher)
    fleet_run = asyncio.create_task(
        run_fleet(publisher, fleet, interval_seconds=interval, stop_after_seconds=seconds)
    )
    watch = asyncio.create_task(board.watch())
    left, why = 0, None
    try:
        await fleet_run
        await publisher.flush()
    except asyncio.CancelledError:  # Ctrl-C: what is on its way is still waited for, a little
        fleet_run.cancel()
        await asyncio.gather(fleet_run, return_exceptions=True)
        try:
            await asyncio.wait_for(publisher.flush(), 5)
        except (TimeoutError, TidewireError) as error:
            left, why = publisher.pending_readings, publisher.trouble or error
    finally:
        watch.cancel()
        await asyncio.gather(watch, fleet_run, return_exceptions=True)
        await publisher.close(flush=False)
    totals = publisher.totals
    took = time.monotonic() - began
    session.out.done(
        f"{totals.accepted:,} readings are durable, {totals.refused_readings:,} refused, in {took:.1f} s.",
        {
            "devices": devices,
            "accepted_readings": totals.accepted,
            "refused_readings": dict(totals.refused),
            "batches": totals.batches,
            "resent_batches": totals.resent_batches,
            "unacknowledged_readings": left,
            "seconds": round(took, 3),
        },
    )
    if left:
        session.out.warn(f"{left:,} readings were not acknowledged and may be lost: {why}.")
        session.exit_code = FAILED
    if totals.refused_readings:
        worst = ", ".join(f"{count:,} {reason}" for reason, count in totals.refused.most_common(3))
        session.out.warn(f"Refused: {worst}.")
        session.exit_code = REFUSED


class _Board:
    """A live line of counts on standard error, when that is a terminal."""

    def __init__(self, session: Session, publisher: "AsyncTelemetryPublisher") -> None:
        self._console = session.out.console(stderr=True)
        self._shown = session.out.for_people and sys.stderr.isatty()
        self._publisher = publisher
        self._rates: list[float] = []

    async def watch(self) -> None:
        """Shows it until cancelled."""
        if not self._shown:
            return
        from rich.live import Live

        last, last_at = 0, time.monotonic()
        with Live(self._table(0.0), console=self._console, refresh_per_second=4, transient=True) as live:
            while True:
                await asyncio.sleep(0.5)
                now, accepted = time.monotonic(), self._publisher.totals.accepted
                rate = (accepted - last) / (now - last_at)
                last, last_at = accepted, now
                self._rates = [*self._rates[-39:], rate]
                live.update(self._table(rate))

    def _table(self, rate: float) -> "Table":
        from rich.table import Table

        publisher, totals = self._publisher, self._publisher.totals
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_row(
            "durable", f"{totals.accepted:,}", f"{human_count(rate)}/s", sparkline(self._rates, base=0.0)
        )
        table.add_row("waiting", f"{publisher.pending_readings:,}")
        for reason, count in totals.refused.most_common(3):
            table.add_row(f"refused {reason}", f"{count:,}")
        if totals.resent_batches:
            table.add_row("sent again", f"{totals.resent_batches:,} batches")
        if publisher.pending_readings and publisher.trouble is not None and not rate:
            table.add_row("trouble", str(publisher.trouble))
        return table
