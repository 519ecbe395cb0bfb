"""Looks for devices that the directory does not know, at most one question to the registry per tenant at a time."""

import asyncio
from collections.abc import Iterable

from tidewire_ingestion.ports import DeviceResolver
from tidewire_kit.clock import Clock
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.ids import TenantId, check_device_name

MOST_IDS = 10_000
"""Ids in one question."""
MISSING_SECONDS = 1.0
"""A device that the registry does not know is not asked for again before this."""
_MAX_MISSING = 200_000


class Resolution:
    """Single flight per tenant, with a memory for what was not there."""

    def __init__(self, resolver: DeviceResolver, clock: Clock) -> None:
        self._resolver = resolver
        self._clock = clock
        self._missing: dict[tuple[TenantId, str], float] = {}
        """(tenant, id) → when it may be asked for again; oldest first."""
        self._locks: dict[TenantId, tuple[asyncio.Lock, int]] = {}

    async def resolve(self, tenant: TenantId, device_ids: Iterable[str], known: dict[str, int]) -> None:
        """Returns once each of `device_ids` is in `known` (ids the directory has), or known not to exist.

        Raises Unavailable when the registry cannot be asked.
        """
        wanted = self._worth_asking(tenant, device_ids, known)
        if not wanted:
            return
        lock, waiting = self._locks.get(tenant, (asyncio.Lock(), 0))
        self._locks[tenant] = (lock, waiting + 1)
        try:
            async with lock:
                # While this one waited, another may have asked the same.
                wanted = self._worth_asking(tenant, wanted, known)
                for start in range(0, len(wanted), MOST_IDS):
                    part = wanted[start : start + MOST_IDS]
                    await self._resolver.resolve(tenant, part)
                    self._note_missing(tenant, [each for each in part if each not in known])
        finally:
            lock, waiting = self._locks[tenant]
            if waiting == 1:
                del self._locks[tenant]
            else:
                self._locks[tenant] = (lock, waiting - 1)

    def _worth_asking(self, tenant: TenantId, device_ids: Iterable[str], known: dict[str, int]) -> list[str]:
        now = self._clock.monotonic()
        missing = self._missing
        return [
            each
            for each in dict.fromkeys(device_ids)
            if each not in known and missing.get((tenant, each), now) <= now and _is_device_name(each)
        ]

    def _note_missing(self, tenant: TenantId, device_ids: list[str]) -> None:
        now = self._clock.monotonic()
        for each in device_ids:
            self._missing.pop((tenant, each), None)
            self._missing[tenant, each] = now + MISSING_SECONDS
        while self._missing:
            oldest = next(iter(self._missing))
            if self._missing[oldest] > now and len(self._missing) <= _MAX_MISSING:
                break
            del self._missing[oldest]


def _is_device_name(text: str) -> bool:
    try:
        check_device_name(text)
    except InvalidArgument:
        return False
    return True
