"""Creating devices, one or a thousand at once. Called by grpc_api.

A load of a fleet goes through here, so the work per device is kept small: nothing is read that a unique key can refuse
later, and only a conflict makes it look for what exists.
"""

from collections.abc import Callable, Sequence

from tidewire_kit.clock import Clock
from tidewire_kit.errors import AlreadyExists, InvalidArgument, NotFound, QuotaExceeded
from tidewire_kit.ids import TenantId, Uid, check_device_name, device_name, tenant_name
from tidewire_registry.application.publishing import Publisher
from tidewire_registry.application.requests import RequestKey, memory, remembered, settled
from tidewire_registry.domain.devices import Device, DeviceDraft, created
from tidewire_registry.domain.hierarchy import resolve_drafts
from tidewire_registry.ports import DeviceLimit, Guard, RegistryStore, WriteSet

MAX_DEVICES_PER_BATCH = 1_000


class DeviceCreation:
    """`tenant_id` is the tenant's id for people, for names in errors."""

    def __init__(
        self, store: RegistryStore, publisher: Publisher, clock: Clock, new_uid: Callable[[], Uid]
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._clock = clock
        self._new_uid = new_uid

    async def create(
        self,
        tenant: TenantId,
        tenant_id: str,
        drafts: Sequence[DeviceDraft],
        request: RequestKey | None = None,
        allow_existing: bool = False,
        validate_only: bool = False,
    ) -> list[Device]:
        """Creates all of `drafts` or none; answers the devices in their order.

        `allow_existing`: a device that exists is answered as it is. Parents may be among the drafts. Raises
        InvalidArgument naming the field, NotFound (tenant), AlreadyExists, QuotaExceeded (QUOTA_DEVICES).
        """
        self._check(drafts)
        look = allow_existing or validate_only

        async def decide() -> list[Device]:
            nonlocal look
            replay = await remembered(self._store, tenant, request)
            if replay is not None:
                return await self._again(tenant, tenant_id, list(replay.object_ids), list(replay.object_uids))
            found = await self._store.tenant(tenant)
            if found is None:
                raise NotFound(tenant_name(tenant_id))
            existing: dict[str, Device] = {}
            if look:
                existing = await self._store.devices(tenant, [draft.id for draft in drafts])
                if existing and not allow_existing:
                    first = next(draft.id for draft in drafts if draft.id in existing)
                    raise AlreadyExists(device_name(tenant_id, first))
            look = True  # a conflict leads here again
            new, guards = await self._new_devices(
                tenant, [draft for draft in drafts if draft.id not in existing]
            )
            made = {device.id: device for device in new}
            answer = [existing.get(draft.id) or made[draft.id] for draft in drafts]
            limit = found.quotas.devices_in_force
            if validate_only:
                if (await self._store.counts(tenant))[0] + len(new) > limit:
                    raise _too_many(limit)
                return answer
            kept = memory(request, [device.id for device in answer], answer, self._clock.now_us())
            try:
                writes = WriteSet(puts=new, guards=guards, device_limit=limit if new else None, replay=kept)
                await self._store.commit(tenant, writes)
            except DeviceLimit:
                raise _too_many(limit) from None
            await self._publisher.publish(answer if existing else new)
            return answer

        return await settled(decide)

    def _check(self, drafts: Sequence[DeviceDraft]) -> None:
        if len(drafts) > MAX_DEVICES_PER_BATCH:
            why = f"has {len(drafts)} devices; give at most {MAX_DEVICES_PER_BATCH} at once"
            raise InvalidArgument("requests", why)
        seen: set[str] = set()
        for draft in drafts:
            check_device_name(draft.id, field=draft.where.removesuffix("device") + "device_id")
            if draft.id in seen:
                raise InvalidArgument(
                    draft.where.removesuffix("device") + "device_id", f"{draft.id} occurs twice"
                )
            seen.add(draft.id)
            draft.check()

    async def _new_devices(
        self, tenant: TenantId, drafts: Sequence[DeviceDraft]
    ) -> tuple[list[Device], list[Guard]]:
        own = {draft.id for draft in drafts}
        outside = {draft.parent_id for draft in drafts if draft.parent_id} - own
        parents = await self._store.devices(tenant, sorted(outside)) if outside else {}
        uids = [self._new_uid() for _ in drafts]
        ancestors = resolve_drafts(drafts, uids, parents)
        now = self._clock.now_us()
        new = [created(d, tenant, uid, up, now) for d, uid, up in zip(drafts, uids, ancestors, strict=True)]
        return new, [Guard(parent.id, parent.uid, parent.revision) for parent in parents.values()]

    async def _again(self, tenant: TenantId, tenant_id: str, ids: list[str], uids: list[Uid]) -> list[Device]:
        """What an earlier try of the same request made, as it is now."""
        found = await self._store.devices(tenant, ids)
        answer = []
        for id_, uid in zip(ids, uids, strict=True):
            device = found.get(id_)
            if device is None or device.uid != uid:
                raise NotFound(device_name(tenant_id, id_))
            answer.append(device)
        await self._publisher.publish(answer)
        return answer


def _too_many(limit: int) -> QuotaExceeded:
    why = f"the tenant may have {limit} devices (quotas.devices); delete some, or ask for a higher quota"
    return QuotaExceeded("devices", why, reason="QUOTA_DEVICES", retry_delay_seconds=60.0)
