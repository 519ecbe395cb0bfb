"""What lasts as long as its process: the tasks and threads without which a part of it does nothing any more.

Each of them carries on after every error that it knows. One that has ended all the same is a fault that only a new
process heals, and nobody would notice by itself: calls would wait for ever. The parts ask here, the liveness of
`tidewire_kit.grpc.health` asks the parts, and whoever runs the process starts it again.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any

Lifeline = Callable[[], str | None]
"""Says why a part can never work again in this process; None: it works, or will again by itself. Quick, does not wait.

What the world outside must heal (a broker that is down, a full disk) is no business of lifelines, but of checks."""


def ended(*lasting: "asyncio.Task[Any] | threading.Thread | None") -> str | None:
    """Returns which of these has ended, and by what; None when none has. Those not yet started do not count."""
    for one in lasting:
        if isinstance(one, asyncio.Task):
            if one.done():
                error = None if one.cancelled() else one.exception()
                how = "was cancelled" if one.cancelled() else f"ended: {error!r}" if error else "ended"
                return f"the task {one.get_name()!r} {how}"
        elif one is not None and one.ident is not None and not one.is_alive():
            return f"the thread {one.name!r} ended"
    return None


def first(lifelines: Iterable[Lifeline]) -> str | None:
    """Returns what the first of these that does not say None says."""
    return next((why for lifeline in lifelines if (why := lifeline()) is not None), None)
