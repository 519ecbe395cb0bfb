"""Whether this machine and a server agree on the time: log time, expiry of tokens and retention come from clocks."""

import time
from collections.abc import Awaitable, Callable
from typing import Final

from tidewire_platform.doctor.finding import Finding, ok, warning, wrong

CHECK: Final = "clock"
NOTICED_SECONDS: Final = 1.0
HARMFUL_SECONDS: Final = 30.0


async def check_clock(subject: str, ask: Callable[[], Awaitable[float]]) -> Finding:
    """Compares clocks. `ask` returns the server's unix time in seconds, taken while it answered."""
    before = time.time()
    theirs = await ask()
    after = time.time()
    # The answer was given at some moment between: what lies outside is the difference for certain.
    skew = theirs - after if theirs > after else min(theirs - before, 0.0)
    return judged(subject, skew)


def judged(subject: str, skew_seconds: float) -> Finding:
    """The finding for a server whose clock is ahead of ours by so much (negative: behind)."""
    size = abs(skew_seconds)
    text = f"its clock and this machine's agree to {max(size, 0.01):.2f} s"
    if size < NOTICED_SECONDS:
        return ok(CHECK, subject, text)
    way = "ahead of" if skew_seconds > 0 else "behind"
    text = f"its clock is {size:.1f} s {way} this machine's"
    remedy = "let both follow a time server (chrony, systemd-timesyncd)"
    return (wrong if size >= HARMFUL_SECONDS else warning)(CHECK, subject, text, remedy)
