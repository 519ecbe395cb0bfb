"""What must be unique among tenants: their names, and the ids of CreateTenant requests. Called by store.commit.

Both are claimed by a conditional write before the tenant's own commit. A claim whose tenant never came (its process
died) is taken over after half a minute: first the head of the tenant that never came is closed, so that it cannot come
any more, then the claim changes hands. A deleted tenant gives its name back.
"""

# ruff: noqa: S608 - the texts are made of our own names; every value is a bind parameter

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tidewire_kit.cassandra import OUTCOME_UNKNOWN, CassandraSession, Consistency
from tidewire_kit.errors import Unavailable
from tidewire_kit.ids import TenantId
from tidewire_registry.adapters.cassandra.rows import replay_of, replay_values
from tidewire_registry.domain.tenants import Tenant
from tidewire_registry.ports import Conflict, Replay

ABANDONED_US = 30_000_000
_ATTEMPTS = 4

_CLAIM_NAME = (
    "INSERT INTO registry_tenant_names (shard, id, uid, reserved_us) VALUES (0, ?, ?, ?) IF NOT EXISTS"
)
_READ_NAME = "SELECT uid, reserved_us FROM registry_tenant_names WHERE shard = 0 AND id = ?"
_TAKE_NAME = "UPDATE registry_tenant_names SET uid = ?, reserved_us = ? WHERE shard = 0 AND id = ? IF uid = ?"
_FREE_NAME = "DELETE FROM registry_tenant_names WHERE shard = 0 AND id = ? IF uid = ?"
_VALUES = "fingerprint, object_ids, object_uids, made_us"
_CLAIM_REQUEST = (
    f"INSERT INTO registry_tenant_requests (request_id, uid, reserved_us, {_VALUES})"
    " VALUES (?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS"
)
_READ_REQUEST = f"SELECT uid, reserved_us, {_VALUES} FROM registry_tenant_requests WHERE request_id = ?"
_TAKE_REQUEST = (
    "UPDATE registry_tenant_requests SET uid = ?, reserved_us = ?, fingerprint = ?, object_ids = ?, object_uids = ?,"
    " made_us = ? WHERE request_id = ? IF uid = ?"
)


class Claims:
    """One per store. `has_come`: whether this tenant was ever committed; `close`: sees to it that it never will be,
    and returns False when it has."""

    def __init__(
        self,
        session: CassandraSession,
        now_us: Callable[[], int],
        has_come: Callable[[TenantId], Awaitable[bool]],
        close: Callable[[TenantId], Awaitable[bool]],
    ) -> None:
        self._session = session
        self._now_us = now_us
        self._has_come = has_come
        self._close = close

    async def claim(self, tenant: Tenant, replay: Replay | None, forgotten_us: int) -> None:
        """Claims what the tenant needs. Raises Conflict; then it holds nothing.

        `forgotten_us`: requests that were made before are forgotten."""
        await self._claim_name(tenant)
        if replay is None:
            return
        try:
            await self._claim_request(tenant.uid, replay, forgotten_us)
        except Conflict:
            await self.free_name(tenant.id, tenant.uid)
            raise

    async def free_name(self, tenant_id: str, uid: TenantId) -> None:
        """Gives back the name if it belongs to this tenant. Idempotent."""
        await self._apply(_FREE_NAME, (tenant_id, uid))

    async def replay(self, request_id: str, forgotten_us: int) -> Replay | None:
        """The memory of a CreateTenant request; None also while its tenant has not come."""
        row = await self._read(_READ_REQUEST, (request_id,))
        if row is None or row.uid is None or row.made_us < forgotten_us:
            return None
        return replay_of(request_id, row[2:]) if await self._has_come(TenantId(row.uid)) else None

    # Inside

    async def _claim_name(self, tenant: Tenant) -> None:
        for _ in range(_ATTEMPTS):
            now = self._now_us()
            if await self._apply(_CLAIM_NAME, (tenant.id, tenant.uid, now)):
                return
            held = await self._read(_READ_NAME, (tenant.id,))
            if held is None:
                continue
            if held.uid == tenant.uid:
                return
            if not await self._abandoned(held):
                break
            await self._apply(_TAKE_NAME, (tenant.uid, now, tenant.id, held.uid))
        raise Conflict(f"the name {tenant.id} is taken")

    async def _claim_request(self, uid: TenantId, replay: Replay, forgotten_us: int) -> None:
        values = replay_values(replay)
        for _ in range(_ATTEMPTS):
            now = self._now_us()
            if await self._apply(_CLAIM_REQUEST, (replay.request_id, uid, now, *values)):
                return
            held = await self._read(_READ_REQUEST, (replay.request_id,))
            if held is None or held.uid is None:
                continue
            if held.uid == uid:
                return
            if held.made_us >= forgotten_us and not await self._abandoned(held):
                break
            await self._apply(_TAKE_REQUEST, (uid, now, *values, replay.request_id, held.uid))
        raise Conflict("the request is known")

    async def _abandoned(self, held: Any) -> bool:
        """Whether who holds a claim has not come and will not."""
        if self._now_us() - held.reserved_us < ABANDONED_US:
            return False
        return await self._close(TenantId(held.uid))

    async def _apply(self, text: str, values: Sequence[Any]) -> bool:
        """Makes a conditional write; False when it may not have taken effect: a serial read then tells."""
        prepared = await self._session.prepare(text)
        try:
            return (await self._session.apply(prepared, values)).applied
        except Unavailable as error:
            if error.reason != OUTCOME_UNKNOWN:
                raise
        return False

    async def _read(self, text: str, key: Sequence[Any]) -> Any:
        prepared = await self._session.prepare(text)
        found = await self._session.execute(prepared, key, consistency=Consistency.LOCAL_SERIAL)
        return found[0] if found else None
