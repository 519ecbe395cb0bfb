"""Keeps an import within the tenant's quota, so that nothing has to be refused and sent again. Called by `run`."""

import asyncio
import time

from tidewire.registry.v1.resources_pb2 import TenantQuotas

_SHARE = 0.95


class Pace:
    """Waits so that readings go at 95 % of a rate, half a second's worth at once; None: as fast as it goes."""

    def __init__(self, readings_per_second: float | None) -> None:
        self._rate = readings_per_second * _SHARE if readings_per_second else None
        self._due = time.monotonic()

    @classmethod
    def within(cls, quotas: TenantQuotas, *, one_device: bool) -> "Pace":
        """The pace of a tenant's quotas; that of a device counts when all readings are of one."""
        rates = [quotas.readings_per_second, quotas.device_readings_per_second if one_device else 0]
        return cls(min((rate for rate in rates if rate), default=None))

    def batch_readings(self, wanted: int) -> int:
        """Readings of a batch: no more than half a second's worth."""
        return wanted if self._rate is None else max(1, min(wanted, int(self._rate / 2)))

    async def wait(self, readings: int) -> None:
        """Waits until so many more may go."""
        if self._rate is None:
            return
        now = time.monotonic()
        self._due = max(self._due, now - 0.5)
        if self._due > now:
            await asyncio.sleep(self._due - now)
        self._due += readings / self._rate
