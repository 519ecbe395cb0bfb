"""One run of the demo: platform, tenant, history, replay and fleet, live view, and the check at the end.

Three ways to begin: nothing runs on the data directory (start the platform here), a platform runs (attach to it), or
another demo runs (only watch: it already sends what there is to send).
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tidewire_cli.contexts import Context, write_context
from tidewire_client import AsyncQueryClient
from tidewire_kit.datadir import DataDir, open_data_dir
from tidewire_kit.endpoints import read_endpoints
from tidewire_kit.errors import FailedPrecondition, Unavailable
from tidewire_kit.settings import CommonSettings, load
from tidewire_platform.demo.check import Verdict, check, stored_so_far
from tidewire_platform.demo.console import DemoConsole
from tidewire_platform.demo.hints import next_commands
from tidewire_platform.demo.publishing import REPLAY_SPEED, DemoPublisher
from tidewire_platform.demo.setup import TENANT, DemoAccess, prepare
from tidewire_platform.demo.sources import load_sources
from tidewire_platform.demo.state import StateFile
from tidewire_platform.demo.stats import Stats
from tidewire_platform.demo.view import View, refusals_text
from tidewire_platform.foreground import stop_at_signals, write_local_context
from tidewire_platform.lock import ExclusiveLock, lock_holder
from tidewire_platform.platform import Interrupted, ca_file_of, running_platform, unless
from tidewire_platform.ports import check_ports
from tidewire_platform.specs import PlatformOptions, process_specs

POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the user may choose."""

    platform: PlatformOptions
    seconds: float | None = None
    """End by itself after so long; None: at Ctrl-C."""
    temporary: bool = False
    """In a directory of its own, on free ports, without contexts; all of it goes at the end."""
    environ: Mapping[str, str] | None = None
    """Settings of the platform; None: the process's own."""
    keep_times: bool = False
    """Real readings keep their own times instead of ending now."""


async def run_demo(options: DemoOptions, console: DemoConsole) -> int:
    """Runs the demo and returns the exit status: 0, or 1 when a promise was broken. Raises TidewireError."""
    stop = asyncio.Event()
    stop_at_signals(stop)
    console.gone = stop.set
    if not options.temporary:
        return await _run_in(options, console, stop)
    with tempfile.TemporaryDirectory(prefix="tidewire-demo-") as directory:
        platform = replace(options.platform, data_dir=Path(directory) / "data", free_ports=True)
        async with _names_of_its_own() as environ:
            return await _run_in(replace(options, platform=platform, environ=environ), console, stop)


@contextlib.asynccontextmanager
async def _names_of_its_own() -> AsyncIterator[Mapping[str, str]]:
    """The settings of a temporary platform: on shared servers it uses no name that another one has."""
    if load(CommonSettings, os.environ).backend == "embedded":
        yield os.environ
        return
    from tidewire_platform.temporary import temporary_names  # it imports the drivers

    async with temporary_names(os.environ) as environ:
        yield environ


async def _run_in(options: DemoOptions, console: Console, stop: asyncio.Event) -> int:
    data_dir = open_data_dir(options.platform.data_dir)
    if lock_holder(data_dir.run / "demo.lock") is not None:
        return await _watch(options, data_dir, console, stop)
    lock = ExclusiveLock(
        data_dir.run / "demo.lock", command="tidewire demo", remedy="Start it again to watch that one"
    )
    with lock:
        async with _platform(options, data_dir, console, stop) as endpoint:
            return await _perform(options, data_dir, endpoint, console, stop)


@contextlib.asynccontextmanager
async def _platform(
    options: DemoOptions, data_dir: DataDir, console: Console, stop: asyncio.Event
) -> AsyncIterator[str]:
    """The registry's address of the platform on this directory, which is started when none runs."""
    holder = lock_holder(data_dir.run / "up.lock")
    if holder is not None:
        running = read_endpoints(data_dir).get("registry", [])
        if not running:
            raise Unavailable(
                "registry", f"`{holder.command}` (process {holder.pid}) is starting; try again in a moment"
            )
        console.print(f"Using the platform that runs on {data_dir.root} (process {holder.pid})")
        yield running[0].address
        return
    began = time.monotonic()
    async with running_platform(
        _with_usable_ports(options.platform, console), "tidewire demo", stop, options.environ
    ) as platform:
        seconds = time.monotonic() - began
        console.print(f"Platform serving after {seconds:.1f} s, registry at {platform.endpoint}")
        if not options.temporary:
            write_local_context(platform)
        yield platform.endpoint
        console.print("Stopping the services in order; once more Ctrl-C ends them at once")
        stop_at_signals(stop, platform)
    console.print("Stopped")


def _with_usable_ports(options: PlatformOptions, console: Console) -> PlatformOptions:
    """Free ports when another platform has the usual ones: for a demo any will do."""
    try:
        check_ports(process_specs(options))
    except FailedPrecondition as error:
        if error.reason != "PORT_IN_USE":
            raise
        console.print(f"{error.subject} is in use, so this platform takes free ports")
        return replace(options, free_ports=True)
    return options


async def _perform(
    options: DemoOptions, data_dir: DataDir, endpoint: str, console: Console, stop: asyncio.Event
) -> int:
    ca_file = ca_file_of(load(CommonSettings, os.environ))
    sources = load_sources()
    access = await unless(stop, prepare(data_dir, endpoint, ca_file, sources))
    file = StateFile(data_dir.root)
    stats = Stats()
    publisher = DemoPublisher(
        access, sources, file.load(access.tenant_uid, keep_times=options.keep_times), file, stats
    )
    publisher.plan(now_us=time.time_ns() // 1000)
    if not options.temporary:
        authority = str(ca_file.absolute()) if ca_file else ""
        write_context(TENANT, Context(endpoint, TENANT, str(access.token_file), ca_file=authority), use=False)
    async with access.connection() as connection:
        query = AsyncQueryClient(connection)
        before = (await stored_so_far(query) or (0, 0))[1]
        async with publisher.open():
            await unless(stop, _import(publisher, console))
            if not options.temporary:
                console.print(next_commands(), highlight=False)
            await _live(options, publisher, query, before, console, stop)
            console.print("Waiting until everything acknowledged is visible; Ctrl-C does not wait")
            hurry = asyncio.Event()
            stop_at_signals(hurry)
            await unless(hurry, publisher.flush())
        verdict = await unless(hurry, check(query, publisher))
    _summary(verdict, stats, console)
    return 0 if verdict.good else 1


async def _import(publisher: DemoPublisher, console: Console) -> None:
    for device, source in publisher.sources.items():
        done, total = publisher.state.rows_done[device], publisher.history_rows(device)
        text = "imported before" if done >= total else f"importing {total - done:,} rows"
        console.print(f"{device}: {source.title}, {source.rows:,} rows: {text}", highlight=False)
    began = time.monotonic()
    rows = await publisher.send_history()
    if rows:
        seconds = time.monotonic() - began
        console.print(
            f"Imported {rows:,} rows in {seconds:.1f} s ({publisher.stats.accepted:,} readings)",
            highlight=False,
        )


async def _live(
    options: DemoOptions,
    publisher: DemoPublisher,
    query: AsyncQueryClient,
    before: int,
    console: Console,
    stop: asyncio.Event,
) -> None:
    """Replay, fleet and view until the end. `before`: readings that were stored when this run began."""
    stats = publisher.stats
    stats.begin()
    view = View(console, stats)
    replaying = set(publisher.sources)

    def stage() -> str:
        names = ", ".join(sorted(replaying))
        return (
            f"replaying {names} at {REPLAY_SPEED}×, with 200 meters"
            if names
            else "replay done; 200 meters go on"
        )

    view.stage = stage()

    def replayed(device: str) -> None:
        replaying.discard(device)
        view.stage = stage()

    tasks = [
        asyncio.create_task(publisher.replay(replayed)),
        asyncio.create_task(publisher.run_fleet()),
        asyncio.create_task(_poll(query, stats, view, before)),
    ]
    with view.shown():
        await _until_stopped(options.seconds, stop, [*tasks[1:], publisher.failure])
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended
    if publisher.failure.done():
        publisher.failure.result()


async def _poll(query: AsyncQueryClient, stats: Stats, view: View, before: int) -> None:
    """Once a second: asks what is stored, and shows it."""
    while True:
        await asyncio.sleep(POLL_SECONDS)
        answer = await stored_so_far(query)
        if answer is not None:
            stats.seen(min(answer[1] - before, stats.accepted))
        stats.tick()
        view.refresh()


async def _until_stopped(
    seconds: float | None, stop: asyncio.Event, tasks: list[asyncio.Future[Any]]
) -> None:
    """Returns when the time is up, a signal came, or a task ended, which only an error makes it do."""
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({waiting, *tasks}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _summary(verdict: Verdict, stats: Stats, console: Console) -> None:
    scope = "all of the sensors, of the meters those of this run"
    lines = [
        "",
        f"accepted               {verdict.accepted:>12,}   readings in this run, durable when acknowledged",
        f"visible                {verdict.visible:>12,}   of {verdict.expected:,} that must be: {scope}",
        f"collapsed              {verdict.collapsed:>12,}   of the same device, metric and time as a later one",
        f"lost                   {verdict.lost:>12,}",
        f"duplicates             {verdict.duplicates:>12,}",
        f"ledger difference      {verdict.difference:>12,}",
        f"refused by reason      {stats.refused.total():>12,}   {refusals_text(stats)}",
    ]
    if verdict.unsettled:
        lines.append("Storage had not caught up in time: look at the logs in the data directory's run/logs.")
    lines.append("Everything acknowledged is visible, once." if verdict.good else "A promise was broken.")
    console.print("\n".join(lines), highlight=False)


async def _watch(options: DemoOptions, data_dir: DataDir, console: Console, stop: asyncio.Event) -> int:
    """Shows what another demo does on this directory."""
    running = read_endpoints(data_dir).get("registry", [])
    token_file = data_dir.keys / "demo.token"
    if not running or not token_file.exists():
        raise Unavailable("demo", f"the demo on {data_dir.root} is starting; try again in a moment")
    console.print(f"Another demo runs on {data_dir.root}: watching it. Ctrl-C ends the watching only.")
    stats = Stats()
    view = View(console, stats)
    view.stage = "watching"
    ca_file = ca_file_of(load(CommonSettings, os.environ))
    access = DemoAccess(running[0].address, ca_file, "", token_file, {})
    async with access.connection() as connection:
        query = AsyncQueryClient(connection)
        with view.shown(), contextlib.suppress(Interrupted, TimeoutError):
            async with asyncio.timeout(options.seconds):
                await unless(stop, _follow(query, stats, view))
                console.print("The platform does not answer any more")
    return 0


async def _follow(query: AsyncQueryClient, stats: Stats, view: View) -> None:
    """Shows what storage counts, once a second, until it does not answer."""
    first = await stored_so_far(query)
    answer = first
    while first is not None and answer is not None:
        stats.accepted = answer[0] - first[0]
        stats.seen(answer[1] - first[0])
        stats.tick()
        view.refresh()
        await asyncio.sleep(POLL_SECONDS)
        answer = await stored_so_far(query)
