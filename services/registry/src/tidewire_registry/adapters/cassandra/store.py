"""CassandraStore: the RegistryStore of the distributed backend. Made by main.

A write set is atomic by the kit's journal: one head row per tenant, one conditional write per commit. `writes` decides,
`plan` is what the journal keeps and carries out. Several processes commit to the same tenant; exactly one of those that
conflict wins. What a process that died left decided but not written is completed by the next commit or the sweep.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from tidewire_kit.cassandra import CassandraSession, CassandraSettings
from tidewire_kit.cassandra.journal import Entry, Head, Journal
from tidewire_kit.cassandra.schema import open_session
from tidewire_kit.errors import TidewireError
from tidewire_kit.filter.conditions import Condition
from tidewire_kit.ids import TenantId, Uid
from tidewire_kit.observability.logs import get_logger
from tidewire_registry.adapters.cassandra.claims import Claims
from tidewire_registry.adapters.cassandra.notes import Notes
from tidewire_registry.adapters.cassandra.plan import CommitPlan, decode, together, write_rows
from tidewire_registry.adapters.cassandra.publishing import Publishing
from tidewire_registry.adapters.cassandra.purging import Purging
from tidewire_registry.adapters.cassandra.queries import Queries
from tidewire_registry.adapters.cassandra.reads import Reads
from tidewire_registry.adapters.cassandra.schema import SCHEMA
from tidewire_registry.adapters.cassandra.writes import (
    Decision,
    TenantState,
    check_one_tenant,
    created_tenant,
)
from tidewire_registry.domain.changes import Change, ObjectRef
from tidewire_registry.domain.credentials import Credential
from tidewire_registry.domain.devices import Device
from tidewire_registry.domain.tenants import Tenant
from tidewire_registry.ports import Page, Replay, WriteSet

logger = get_logger(__name__)

HEADS = "registry_heads"
NO_TENANT = TenantId(bytes(16))
"""Stands for the tenant in the memory of CreateTenant requests."""
_SWEEP_SECONDS = 10.0


def _wall_clock_us() -> int:
    return time.time_ns() // 1_000


class CassandraStore:
    """See `ports.RegistryStore` for what the methods promise. Any number of processes may use one keyspace."""

    def __init__(
        self,
        settings: CassandraSettings,
        metrics: CollectorRegistry | None = None,
        now_us: Callable[[], int] = _wall_clock_us,
        session: CassandraSession | None = None,
    ) -> None:
        """`session`: one that is open already, instead of `settings`' own."""
        self._settings = settings
        self._metrics = metrics
        self._now_us = now_us
        self._forgotten_us = 0
        self._encoded: dict[bytes, tuple[bytes, CommitPlan]] = {}
        """Tenant → the commit that is under way here, as the journal holds it and as it was made."""
        self._sweeper: asyncio.Task[None] | None = None
        self._session = session

    async def start(self) -> None:
        """Connects. Unavailable; FailedPrecondition when the settings or the schema are not right."""
        if self._session is None:
            self._session = await open_session(self._settings, [SCHEMA], metrics=self._metrics)
        session = self._session
        self._journal = await Journal.open(session, HEADS, self._apply)
        self._reads = Reads(session)
        self._notes = Notes(session, self._now_us)
        self._claims = Claims(session, self._now_us, self._has_come, self._close_head)
        self._queries = Queries(self._reads)
        self._publishing = Publishing(session, self._reads, self._notes)
        self._purging = Purging(session, self._reads, self._journal)
        self._sweeper = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """Finishes what was begun. Idempotent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None
            await self._journal.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def commit(self, tenant: TenantId, writes: WriteSet) -> None:
        """One conditional write, and the rows before it returns. Commits of one process to one tenant take turns."""
        check_one_tenant(tenant, writes)
        created = created_tenant(writes)
        if created is not None:
            await self._claims.claim(created, writes.replay, self._forgotten_us)
        plan = CommitPlan(tenant, self._notes.period())

        async def build(head: Head) -> Entry:
            nonlocal plan
            plan = CommitPlan(tenant, self._notes.period())
            state = await Decision(self._reads, writes, head, plan, self._forgotten_us).decide()
            body = plan.encode()
            self._encoded[tenant] = body, plan
            return Entry(body, state.encode())

        try:
            head = await self._journal.commit(tenant, build)
        finally:
            self._encoded.pop(tenant, None)
        if head is not None:
            self._notes.remember(plan, head.version)

    # Tenants

    async def tenant(self, tenant: TenantId) -> Tenant | None:
        """By the primary key."""
        return await self._reads.tenant(tenant)

    async def tenant_by_id(self, tenant_id: str) -> Tenant | None:
        """By the name's claim."""
        return await self._reads.tenant_by_id(tenant_id)

    async def tenants(self, after: str, limit: int) -> Page[Tenant]:
        """In the order of the names' partition."""
        return await self._reads.tenants(after, limit)

    async def counts(self, tenant: TenantId) -> tuple[int, int]:
        """From the tenant's head, which changes with the commit."""
        state = TenantState.of(await self._journal.settle(tenant))
        return (state.devices, state.credentials) if state.alive else (0, 0)

    # Devices

    async def devices(self, tenant: TenantId, ids: Sequence[str]) -> dict[str, Device]:
        """Some hundred ids a query."""
        return await self._reads.devices(tenant, ids)

    async def list_devices(
        self, tenant: TenantId, condition: Condition | None, after: str, limit: int
    ) -> Page[Device]:
        """See `queries` for what an index answers."""
        return await self._queries.page(tenant, condition, after, limit)

    async def count_devices(self, tenant: TenantId, condition: Condition | None) -> int:
        """Without a condition from the tenant's head."""
        if condition is None:
            return (await self.counts(tenant))[0]
        return await self._queries.count(tenant, condition)

    async def descendants(self, tenant: TenantId, device_uid: Uid) -> list[Device]:
        """From the closure table."""
        return await self._reads.descendants(tenant, device_uid)

    # Credentials

    async def credentials(
        self, tenant: TenantId, device_uid: Uid, after: str = "", limit: int = 1_000
    ) -> Page[Credential]:
        """From the device's own partition."""
        return await self._reads.credentials(tenant, device_uid, bytes.fromhex(after), limit)

    async def credential(self, tenant: TenantId, uid: Uid) -> Credential | None:
        """By uid."""
        return (await self._reads.credentials_by_uid(tenant, [uid])).get(uid)

    # Requests

    async def replay(self, tenant: TenantId, request_id: str) -> Replay | None:
        """Rows expire after 24 hours."""
        if tenant == NO_TENANT:
            return await self._claims.replay(request_id, self._forgotten_us)
        return await self._reads.replay(tenant, request_id, self._forgotten_us)

    async def forget_replays(self, before_us: int) -> None:
        """Rows expire by themselves; what has not yet is passed over from now on."""
        self._forgotten_us = max(self._forgotten_us, before_us)

    # Publishing and purge

    async def unpublished(self, limit: int) -> list[Change]:
        """From the notes."""
        return await self._publishing.unpublished(limit)

    async def mark_published(self, changes: Sequence[Change]) -> None:
        """Deletes notes; notes again what has changed since, as the topic may now have the older revision."""
        await self._publishing.mark_published(changes)

    async def unpublish(self, refs: Sequence[tuple[ObjectRef, str]]) -> None:
        """Writes notes."""
        await self._publishing.unpublish(refs)

    async def unpublish_all(self) -> None:
        """Walks through all partitions and writes a note for each row."""
        await self._publishing.unpublish_all()

    async def published_topic(self) -> bytes:
        """From `registry_meta`."""
        return await self._publishing.published_topic()

    async def set_published_topic(self, incarnation: bytes) -> None:
        """To `registry_meta`."""
        await self._publishing.set_published_topic(incarnation)

    async def deleted_tenants(self) -> list[TenantId]:
        """From `registry_purges`."""
        return await self._reads.purging()

    async def purge_candidates(self, tenant: TenantId, limit: int) -> list[ObjectRef]:
        """Devices first, then credentials, then tombstones, partition by partition."""
        return await self._purging.candidates(tenant, limit)

    async def purge(self, tenant: TenantId, refs: Sequence[ObjectRef]) -> None:
        """Whole partitions, at the last call."""
        await self._purging.purge(tenant, refs)

    async def erase_deleted(self) -> None:
        """Nothing to do: what is deleted cannot be read from then on, and Cassandra drops it from its files when it
        compacts them after `gc_grace_seconds`. See docs/reference/cassandra.md."""

    # Inside

    @property
    def _session_in_use(self) -> CassandraSession:
        assert self._session is not None, "start() first"
        return self._session

    async def _apply(self, tenant: bytes, version: int, body: bytes) -> None:
        """Carries out a decided commit; perhaps not for the first time."""
        own = self._encoded.get(tenant)
        plan = own[1] if own is not None and own[0] is body else decode(body)
        session = self._session_in_use
        work = [write_rows(session, some, version) for some in plan.rows]
        work.append(self._notes.write(plan, version, version))
        if plan.freed_name:
            work.append(self._claims.free_name(plan.freed_name, TenantId(tenant)))
        await together(work)

    async def _has_come(self, tenant: TenantId) -> bool:
        return (
            await self._reads.tenant(tenant) is not None
            or await self._reads.tenant_tombstone(tenant) is not None
        )

    async def _close_head(self, tenant: TenantId) -> bool:
        """Sees to it that a tenant which was never committed never will be; False when it was."""

        async def build(head: Head) -> Entry | None:
            return Entry(None, TenantState(alive=False).encode()) if not head.version else None

        if await self._journal.commit(tenant, build) is not None:
            return True
        return not await self._has_come(tenant)

    async def _sweep(self) -> None:
        while True:
            try:
                completed = await self._journal.sweep()
                if completed:
                    logger.info("commits_completed", commits=completed)
            except TidewireError as error:
                logger.warning("commit_sweep_failed", error=error.message)
            await asyncio.sleep(_SWEEP_SECONDS)
