"""What the topic does not have yet, as objects. Called by store.CassandraStore; where it is noted is in `notes`."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from tidewire_kit.cassandra import CassandraSession
from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.adapters.cassandra import rows
from tidewire_registry.adapters.cassandra.notes import AGAIN, Note, Notes
from tidewire_registry.adapters.cassandra.plan import Noted
from tidewire_registry.adapters.cassandra.reads import Reads
from tidewire_registry.domain.changes import Change, Kind, ObjectRef, ref_of
from tidewire_registry.domain.credentials import Credential

_NOTES_PER_STEP = 2_000
_TOPIC_KEY = "topic"


class Publishing:
    """One per store."""

    def __init__(self, session: CassandraSession, reads: Reads, notes: Notes) -> None:
        self._session = session
        self._reads = reads
        self._notes = notes

    async def unpublished(self, limit: int) -> list[Change]:
        """Present states of objects that have notes; tenants first. Of a deleted tenant only its tombstone."""
        found: dict[Uid, Change] = {}
        purging: set[TenantId] | None = None
        after: Note | None = None
        while len(found) < limit and (notes := await self._notes.read(after, min(limit, _NOTES_PER_STEP))):
            after = notes[-1]
            if purging is None:
                purging = set(await self._reads.purging())
            states = await self._states(notes)
            over: list[Note] = []
            for note in notes:
                state = states.get(note.uid)
                if note.kind is not Kind.TENANT and note.part.tenant in purging:
                    over.append(note)  # the purge takes it from the topic
                elif state is None and await self._reads.tenant_tombstone(note.part.tenant) is not None:
                    over.append(note)  # it is purged
                elif state is not None and state.revision >= note.revision and len(found) < limit:
                    found[note.uid] = state
                # Else its commit is being written just now.
            await self._notes.discard(over)
        return sorted(found.values(), key=lambda change: ref_of(change).kind is not Kind.TENANT)

    async def mark_published(self, changes: Sequence[Change]) -> None:
        """Deletes the notes of these revisions. What has a newer one by now is noted again: it may have been put before
        what is marked here, by another process, so that the topic went back."""
        by_tenant: dict[TenantId, list[Change]] = {}
        for change in changes:
            by_tenant.setdefault(change.tenant, []).append(change)
        for tenant, some in by_tenant.items():
            uids = {Uid(change.uid) for change in some}
            keys = [(ref.kind, _id(change), ref.uid) for change in some for ref in (ref_of(change),)]
            present, _ = await asyncio.gather(
                self._reads.revisions(tenant, keys), self._notes.of(tenant, uids)
            )
            marked: dict[Uid, int] = {}
            for change in some:
                marked[Uid(change.uid)] = max(marked.get(Uid(change.uid), 0), change.revision)
            late: list[Noted] = [
                (kind, id_, uid, AGAIN) for kind, id_, uid in set(keys) if present.get(uid, 0) > marked[uid]
            ]
            if late:
                await self._notes.write_again(tenant, late)
            await self._notes.delete(marked.items())

    async def unpublish(self, refs: Iterable[tuple[ObjectRef, str]]) -> None:
        """Notes these objects (with their ids), whatever their revision."""
        by_tenant: dict[TenantId, list[Noted]] = {}
        for ref, id_ in refs:
            by_tenant.setdefault(ref.tenant, []).append((ref.kind, id_, ref.uid, AGAIN))
        for tenant, noted in by_tenant.items():
            await self._notes.write_again(tenant, noted)

    async def unpublish_all(self) -> None:
        """Notes every object and tombstone; not what is being purged."""
        text = "SELECT uid FROM registry_tenants"
        async for page in self._reads.pages(text):
            for tenant in (TenantId(row.uid) for row in page):
                noted: list[Noted] = [(Kind.TENANT, "", Uid(tenant), AGAIN)]
                async for some in self._objects(tenant):
                    noted += some
                    if len(noted) >= 10 * _NOTES_PER_STEP:
                        await self._notes.write_again(tenant, noted)
                        noted = []
                await self._notes.write_again(tenant, noted)
        async for page in self._reads.pages("SELECT uid FROM registry_tenant_tombstones WHERE shard = 0"):
            for tenant in (TenantId(row.uid) for row in page):
                await self._notes.write_again(tenant, [(Kind.TENANT, "", Uid(tenant), AGAIN)])

    async def published_topic(self) -> bytes:
        """Empty at first."""
        found = await self._reads.select("SELECT value FROM registry_meta WHERE key = ?", (_TOPIC_KEY,))
        return found[0].value if found else b""

    async def set_published_topic(self, incarnation: bytes) -> None:
        """Sets it."""
        insert = await self._session.prepare("INSERT INTO registry_meta (key, value) VALUES (?, ?)")
        await self._session.execute(insert, (_TOPIC_KEY, incarnation))

    # Inside

    async def _states(self, notes: Sequence[Note]) -> dict[Uid, Change]:
        by_tenant: dict[TenantId, list[tuple[Kind, str, Uid]]] = {}
        for note in notes:
            by_tenant.setdefault(note.part.tenant, []).append((note.kind, note.id, note.uid))
        found = await asyncio.gather(*(self._reads.present(*item) for item in by_tenant.items()))
        return {uid: state for states in found for uid, state in states.items()}

    async def _objects(self, tenant: TenantId) -> AsyncIterator[list[Noted]]:
        for bucket in range(rows.DEVICE_BUCKETS):
            text = "SELECT id, uid FROM registry_devices WHERE tenant = ? AND bucket = ?"
            async for page in self._reads.pages(text, (tenant, bucket)):
                yield [(Kind.DEVICE, row.id, Uid(row.uid), AGAIN) for row in page]
        for bucket in range(rows.CREDENTIAL_BUCKETS):
            text = "SELECT uid, device_id FROM registry_credentials WHERE tenant = ? AND bucket = ?"
            async for page in self._reads.pages(text, (tenant, bucket)):
                yield [(Kind.CREDENTIAL, row.device_id, Uid(row.uid), AGAIN) for row in page]
            text = "SELECT uid, kind, id FROM registry_tombstones WHERE tenant = ? AND bucket = ?"
            async for page in self._reads.pages(text, (tenant, bucket)):
                yield [(Kind(row.kind), row.id, Uid(row.uid), AGAIN) for row in page]


def _id(change: Change) -> str:
    return change.device_id if isinstance(change, Credential) else change.id
