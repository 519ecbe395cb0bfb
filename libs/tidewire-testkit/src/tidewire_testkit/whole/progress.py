"""After a fault the platform goes on by itself: what is sent from then on is acknowledged and visible in time.

Used by the tests that keep a ledger while something is killed.
"""

import asyncio
import time
from collections.abc import Sequence

from tidewire_testkit.whole.load import Publisher
from tidewire_testkit.whole.platform import TenantAccess, UpProcess, until
from tidewire_testkit.whole.readback import read_device

PROGRESS_SECONDS = 20.0


async def progress(
    up: UpProcess, access: TenantAccess, publishers: Sequence[Publisher], since: float
) -> None:
    """Waits until each publisher has an acknowledgement for a batch made after `since`, and that batch is visible.

    `since`: monotonic time of the end of the fault. AssertionError PROGRESS_SECONDS after it.
    """
    deadline = since + PROGRESS_SECONDS

    async def one(publisher: Publisher) -> None:
        async def acknowledged() -> tuple[str, int] | None:
            created, device, time_us = publisher.last_acknowledged
            return (device, time_us) if created > since else None

        what = f"{publisher.name} is acknowledged again"
        device, time_us = await until(acknowledged, what, deadline - time.monotonic())

        async def visible() -> bool:
            return bool(await read_device(up, access, device, start_us=time_us, end_us=time_us + 1))

        await until(visible, f"what {publisher.name} sent since is visible", deadline - time.monotonic())

    await asyncio.gather(*(one(publisher) for publisher in publishers))
