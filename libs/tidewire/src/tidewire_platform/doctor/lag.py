"""How far the consumers of the log are behind, in seconds and records; the same on both backends."""

import asyncio
from typing import Final

from tidewire_kit import topics
from tidewire_kit.errors import TidewireError
from tidewire_kit.log.lag import measure
from tidewire_kit.log.port import MessageLog
from tidewire_platform.doctor.finding import Finding, ok, warning, wrong

CHECK: Final = "lag"
GROUPS: Final = (("tidewire.storage", topics.TELEMETRY, topics.TELEMETRY_RETENTION_SECONDS),)
"""(group, topic that it reads, how long its records are kept)."""
SLOW_SECONDS: Final = 30.0
"""Longer than a fault of ours may delay readings."""
_SHARE_OF_RETENTION: Final = 0.5


async def check_lag(log: MessageLog, now_us: int) -> list[Finding]:
    """Looks at every group. The topics must be known to `log`."""
    return list(await asyncio.gather(*(_check(log, *group, now_us) for group in GROUPS)))


async def _check(log: MessageLog, group: str, topic: str, kept_seconds: float, now_us: int) -> Finding:
    subject = f"{group} on {topic}"
    try:
        lag = await measure(log, group, topic, now_us)
    except TidewireError as error:
        return wrong(CHECK, subject, f"cannot be measured: {error.message}", "see the findings on the log")
    seconds, text = lag.seconds, f"{lag.seconds:.1f} s behind ({lag.records:,} records)"
    if seconds >= kept_seconds * _SHARE_OF_RETENTION:
        return wrong(
            CHECK,
            subject,
            f"{text}; records are kept for {kept_seconds / 3600:.0f} h, and new ones are refused before any is lost",
            "see why the service does not keep up (its health and log); start more processes of it",
        )
    if seconds >= SLOW_SECONDS:
        return warning(
            CHECK,
            subject,
            text,
            "see whether the service runs and what its log says; start more processes of it",
        )
    return ok(CHECK, subject, text)
