"""The platform's own processes: whether each can be reached, says SERVING, and why not."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Final

from tidewire_platform.doctor.finding import Finding, ok, wrong
from tidewire_platform.serving import is_serving, open_channel
from tidewire_platform.specs import SERVICES

CHECK: Final = "service"
SECONDS: Final = 3.0

Known = Mapping[str, Sequence[tuple[str, str]]]
"""Service → (gRPC address, metrics address or "") of its processes."""


async def check_services(known: Known, tls_ca: bytes | None) -> list[Finding]:
    """Asks every known process for its health; a service without any is wrong."""
    asked = [
        _check(service, address, metrics, tls_ca)
        for service in SERVICES
        for address, metrics in known.get(service, ())
    ]
    missing = [
        wrong(
            CHECK,
            service,
            "no process of it is known",
            "start it: `tidewire up` here, or see its Deployment; a process announces itself when it serves",
        )
        for service in SERVICES
        if not known.get(service)
    ]
    return [*await asyncio.gather(*asked), *missing]


async def _check(service: str, address: str, metrics: str, tls_ca: bytes | None) -> Finding:
    subject = f"{service} {address}"
    async with open_channel(address, tls_ca) as channel:
        if await is_serving(channel, SECONDS):
            return ok(CHECK, subject, "serves")
    reasons = await asyncio.to_thread(_failures, metrics) if metrics else None
    if reasons is None:
        return wrong(
            CHECK,
            subject,
            "cannot be reached",
            "see whether the process runs and its log, and whether a firewall or TIDEWIRE_ADVERTISE_HOST is in the way",
        )
    why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "it says nothing more"
    return wrong(CHECK, subject, f"does not serve: {why}", "remove the cause; the process recovers by itself")


def _failures(metrics: str) -> dict[str, str] | None:
    """What fails by the process's own words (/healthz); None when it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{metrics}/healthz", timeout=SECONDS) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        with error:
            try:
                return dict(json.load(error))
            except ValueError:
                return {}
    except (OSError, ValueError):
        return None
