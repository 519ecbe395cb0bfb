"""Every change reaches the registry topic, in the order of its revisions, and is answered for only then.

    use case:  commit (unpublished) ──► publish() waits ──► answer
    publisher: gathers what waits ──► one put ──► wakes the waiting ──► marks as published, with the next commit

One task puts, and remembers what it put lately, so an older revision never overwrites a newer one of this process.
Marking comes after answering: a crash between the two repeats a put, which changes nothing. What fails stays stored as
unpublished, and is put again every few seconds.

Several processes write to one topic, and a put that was held up may land behind a newer revision's. Three things make
good for that. Marking looks at the store: what has a newer revision by now is noted again. `topic_watch` looks at the
topic: where it goes back, though its writer has died, the object is noted again. And whatever is noted is put in its
present state, by every process's sweep. So the topic ends with the present state of each object, a few seconds later.
"""

import asyncio
from collections.abc import Sequence

from tidewire_kit.clock import Clock
from tidewire_kit.errors import TidewireError, Unavailable
from tidewire_kit.ids import TenantId
from tidewire_kit.lasting import ended
from tidewire_kit.observability.logs import get_logger
from tidewire_registry.domain.changes import Change
from tidewire_registry.domain.tenants import Tenant
from tidewire_registry.metrics import RegistryMetrics
from tidewire_registry.ports import ChangeTopic, RegistryStore

logger = get_logger(__name__)

_MAX_CHANGES_PER_PUT = 4_000
_KEPT_NAMES = 10_000
_REMEMBERED_PUTS = 20_000


class Publisher:
    """One per process. `start` before the first use case runs; `close` after the last."""

    def __init__(
        self,
        store: RegistryStore,
        topic: ChangeTopic,
        clock: Clock,
        metrics: RegistryMetrics,
        sweep_seconds: float = 5.0,
    ) -> None:
        self._store = store
        self._topic = topic
        self._clock = clock
        self._metrics = metrics
        self._sweep_seconds = sweep_seconds
        self._waiting: list[tuple[Sequence[Change], asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._published: list[Change] = []
        self._put_lately: dict[bytes, int] = {}
        self._put_before: dict[bytes, int] = {}
        self._tenant_ids: dict[TenantId, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._mark = asyncio.Event()
        self.failing = ""
        """Why changes could not be put, or looked for in the store; empty once a put or a sweep has gone well."""

    async def start(self) -> None:
        """Publishes what an earlier process left, everything if the topic is new, and begins to work.

        Raises Unavailable or QuotaExceeded when that cannot be done.
        """
        if await self._store.published_topic() != self._topic.incarnation:
            logger.info("registry_topic_is_new")
            await self._store.unpublish_all()
            await self._sweep()
            await self._store.set_published_topic(self._topic.incarnation)
        else:
            await self._sweep()
        self._tasks = [
            asyncio.create_task(self._put_changes(), name="registry publish"),
            asyncio.create_task(self._mark_changes(), name="registry mark"),
        ]

    async def close(self) -> None:
        """Publishes what waits, then stops. Idempotent."""
        deadline = self._clock.monotonic() + 5.0
        while self._waiting and not self.failing and self._clock.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._published:
            await self._flush_marks()

    def ended(self) -> str | None:
        """Says so when nothing is published any more though nobody closed it; see `tidewire_kit.lasting`."""
        return ended(*self._tasks)

    async def publish(self, changes: Sequence[Change]) -> None:
        """Returns when these changes, just committed, are on the topic.

        Call it without awaiting anything after the commit. Raises Unavailable when they could not be put; they are
        stored, and published later.
        """
        if not changes:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((changes, future))
        self._wake.set()
        await future

    # Inside

    async def _put_changes(self) -> None:
        sweep_at = self._clock.monotonic() + self._sweep_seconds
        while True:
            try:
                async with asyncio.timeout(max(0.0, sweep_at - self._clock.monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                pass
            if self._waiting:
                await self._put_waiting()
            if self._clock.monotonic() >= sweep_at:
                try:
                    await self._sweep()
                except Exception as error:  # noqa: BLE001 - if this task ended, every change would wait for ever
                    self._failed(error)
                sweep_at = self._clock.monotonic() + self._sweep_seconds

    async def _put_waiting(self) -> None:
        taken: list[tuple[Sequence[Change], asyncio.Future[None]]] = []
        count = 0
        while self._waiting and (not taken or count + len(self._waiting[0][0]) <= _MAX_CHANGES_PER_PUT):
            taken.append(self._waiting.pop(0))
            count += len(taken[-1][0])
        if not self._waiting:
            self._wake.clear()
        newest: dict[bytes, Change] = {}
        for changes, _ in taken:
            for change in changes:
                held = newest.get(change.uid)
                if held is None or held.revision <= change.revision:
                    newest[change.uid] = change
        try:
            await self._put([change for change in newest.values() if not self._is_old(change)])
        except Exception as error:  # noqa: BLE001 - as in _put_changes
            self._failed(error)
            for _, future in taken:
                if not future.done():
                    future.set_exception(_not_yet(error))
            return
        for _, future in taken:
            if not future.done():
                future.set_result(None)

    def _is_old(self, change: Change) -> bool:
        lately = self._put_lately.get(change.uid) or self._put_before.get(change.uid, 0)
        return lately > change.revision

    async def _put(self, changes: list[Change]) -> None:
        for tenant_uid in {change.tenant for change in changes}:
            if tenant_uid not in self._tenant_ids:
                tenant = await self._store.tenant(tenant_uid)
                if tenant is not None:
                    self._tenant_ids[tenant_uid] = tenant.id
        for change in changes:
            if isinstance(change, Tenant):
                self._tenant_ids[change.uid] = change.id
        await self._topic.put(changes, self._tenant_ids)
        self._put_lately.update((change.uid, change.revision) for change in changes)
        self.failing = ""
        self._metrics.published.inc(len(changes))
        self._published.extend(changes)
        self._mark.set()
        if len(self._tenant_ids) > _KEPT_NAMES:
            self._tenant_ids.clear()
        if len(self._put_lately) > _REMEMBERED_PUTS:
            self._put_lately, self._put_before = {}, self._put_lately

    async def _sweep(self) -> None:
        """Puts what is unpublished, and marks it. What was put but not yet marked is marked first."""
        await self._flush_marks()
        full = True
        while full:
            changes = await self._store.unpublished(_MAX_CHANGES_PER_PUT)
            # A short list is the last: what other processes are just publishing would make this go on for ever.
            full = len(changes) >= _MAX_CHANGES_PER_PUT
            if changes:
                logger.info("republishing", changes=len(changes))
                self._metrics.republished.inc(len(changes))
                await self._put(changes)
                await self._flush_marks()
        self.failing = ""  # nothing is left unpublished, though there may have been nothing to put

    async def _mark_changes(self) -> None:
        while True:
            await self._mark.wait()
            try:
                await self._flush_marks()
            except Exception as error:  # noqa: BLE001 - as in _put_changes
                logger.warning("marking_failed", error=_text(error))
                await asyncio.sleep(1.0)

    async def _flush_marks(self) -> None:
        self._mark.clear()
        changes, self._published = self._published, []
        if changes:
            await self._store.mark_published(changes)

    def _failed(self, error: Exception) -> None:
        if not self.failing:
            logger.error("publishing_failed", error=_text(error))
        self.failing = _text(error)
        self._metrics.publish_failures.inc()


def _text(error: Exception) -> str:
    return error.message if isinstance(error, TidewireError) else repr(error)


def _not_yet(error: Exception) -> Unavailable:
    cause = error.message if isinstance(error, TidewireError) else "a fault that is in the registry's log"
    why = f"the change is stored, but could not be published yet ({cause}); it will be by itself"
    return Unavailable("registry topic", why, reason="NOT_YET_PUBLISHED", retry_delay_seconds=5.0)
