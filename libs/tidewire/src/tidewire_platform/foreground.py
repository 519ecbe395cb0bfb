"""`tidewire up`: the platform in the foreground until a signal comes; a second signal does not wait for the drain."""

import asyncio
import os
import signal
import sys
import time
from contextlib import AsyncExitStack

from tidewire_kit.settings import load
from tidewire_platform.health import HealthPage
from tidewire_platform.platform import Platform, running_platform
from tidewire_platform.settings import UpSettings
from tidewire_platform.specs import PlatformOptions

LOCAL = "local"


async def run_up(options: PlatformOptions) -> int:
    """Runs the platform; returns the exit status. Raises TidewireError when it cannot be started."""
    stop = asyncio.Event()
    stop_at_signals(stop)
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        page = HealthPage()
        health_port = options.health_port
        if health_port is None:
            health_port = load(UpSettings, os.environ).health_port
        stack.push_async_callback(page.close)  # after the services have stopped
        health_address = ""
        if health_port is not None:
            health_address = await page.start(options.host, health_port)
        platform = await stack.enter_async_context(running_platform(options, "tidewire up", stop))
        page.serving(platform)
        write_local_context(platform)
        _announce(platform, time.monotonic() - began)
        if health_address:
            print(f"  {'health':<14} http://{health_address}/readyz, /livez, /startupz", flush=True)
        await stop.wait()
        page.stopping()
        print(
            "Stopping the services in order; once more Ctrl-C ends them at once", file=sys.stderr, flush=True
        )
        stop_at_signals(stop, platform)
    return 0


def stop_at_signals(stop: asyncio.Event, platform: Platform | None = None) -> None:
    """Makes SIGINT, SIGTERM and SIGHUP set `stop`; with a `platform`, kill it instead."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set if platform is None else platform.kill)


def write_local_context(platform: Platform) -> None:
    """Writes the context of the platform's administrator; it becomes the current one when there is none."""
    # Imported only now: the SDK brings gRPC, which would delay the start of the services.
    from tidewire_cli.contexts import Context, write_context

    context = Context(
        platform.endpoint,
        token_file=str(platform.data_dir.admin_token_file),
        ca_file=str(platform.ca_file.absolute()) if platform.ca_file else "",
    )
    write_context(LOCAL, context, use=False)


def _announce(platform: Platform, seconds: float) -> None:
    for note in platform.notes:
        print(note)
    print(f"Tidewire serves after {seconds:.1f} s from {platform.data_dir.root}")
    for name, endpoint in platform.endpoints.items():
        metrics = f", metrics http://{endpoint.metrics_address}/metrics" if endpoint.metrics_address else ""
        print(f"  {name:<14} {endpoint.address}{metrics}")
    print(f"Context `{LOCAL}`: tidewire status --context {LOCAL}. Ctrl-C stops in order.", flush=True)
