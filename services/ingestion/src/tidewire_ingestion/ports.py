"""What ingestion needs from the world besides the kit's log and directory."""

from collections.abc import Sequence
from typing import Protocol

from tidewire_ingestion.domain import Reason
from tidewire_kit.ids import TenantId


class DeviceResolver(Protocol):
    """Asks the registry for devices whose change has not reached this process's directory yet."""

    async def resolve(self, tenant: TenantId, device_ids: Sequence[str]) -> None:
        """Merges those of `device_ids` (valid ids, at most 10,000) that exist into the directory.

        Safe to repeat. Raises Unavailable when the registry does not answer in time.
        """


class Observer(Protocol):
    """Counts what happens, for operators. Must be quick and must not raise."""

    def answered(self, tenant: TenantId, batches: int, accepted_readings: int) -> None:
        """So many batches became durable as far as they were admitted, with so many readings altogether."""

    def refused(self, tenant: TenantId, reason: Reason, readings: int) -> None:
        """Rows of that many readings were refused."""

    def failed(self, tenant: TenantId, reason: str) -> None:
        """A batch failed as a whole; `reason` is that of the error."""

    def missed(self, tenant: TenantId, batches: int) -> None:
        """By a publisher's own count, that many batches are missing."""


class EventObserver(Protocol):
    """The same of events."""

    def events_answered(self, tenant: TenantId, accepted: int) -> None:
        """A batch became durable as far as it was admitted: so many events."""

    def events_refused(self, tenant: TenantId, reason: Reason, events: int) -> None:
        """So many events were refused."""

    def failed(self, tenant: TenantId, reason: str) -> None:
        """As in Observer."""


class ShareObserver(Protocol):
    """Shows which part of its quotas each tenant has in this process. Must be quick and must not raise."""

    def quota_shares(self, tenant: TenantId, readings: float, batches: float) -> None:
        """From now on these parts hold, each in (0, 1]."""
