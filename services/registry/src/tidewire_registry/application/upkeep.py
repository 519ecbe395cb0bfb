"""What the registry does without being asked: its heartbeat, the purge of deleted tenants, forgetting old requests."""

import asyncio
from collections.abc import Awaitable, Callable

from tidewire_kit.clock import Clock
from tidewire_kit.errors import TidewireError
from tidewire_kit.lasting import ended
from tidewire_kit.observability.logs import get_logger
from tidewire_registry.application.requests import REPLAY_SECONDS
from tidewire_registry.application.topic_watch import TopicWatch
from tidewire_registry.domain.changes import SigningKey
from tidewire_registry.ports import ChangeTopic, RegistryStore

logger = get_logger(__name__)

HEARTBEAT_SECONDS = 2.0
"""Replicas refuse to publish when they have seen no heartbeat for four times as long."""
_WATCH_SECONDS = 1.0
_PURGE_SECONDS = 30.0
_FORGET_SECONDS = 600.0
_PURGE_STEP = 2_000


class Upkeep:
    """One per process; several do one another no harm. `start` publishes the signing keys and a first heartbeat."""

    def __init__(
        self,
        store: RegistryStore,
        topic: ChangeTopic,
        watch: TopicWatch,
        clock: Clock,
        signing_key: SigningKey,
    ) -> None:
        self._store = store
        self._topic = topic
        self._watch = watch
        self._clock = clock
        self._signing_key = signing_key
        self._tasks: list[asyncio.Task[None]] = []
        self._purge_now = asyncio.Event()
        self._never = asyncio.Event()

    async def start(self) -> None:
        """Raises Unavailable when the topic cannot be written."""
        await self._topic.put_signing_key(self._signing_key)
        await self._topic.put_heartbeat()
        self._tasks = [
            asyncio.create_task(self._every(seconds, work, now), name=f"registry {work.__name__}")
            for seconds, work, now in (
                (HEARTBEAT_SECONDS, self._topic.put_heartbeat, self._never),
                (_WATCH_SECONDS, self._watch.check, self._never),
                (_PURGE_SECONDS, self.purge, self._purge_now),
                (_FORGET_SECONDS, self._forget, self._never),
            )
        ]
        self._purge_now.set()

    async def close(self) -> None:
        """Stops. A purge goes on at the next start. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def ended(self) -> str | None:
        """Says so when one of the loops has ended though nobody closed it; see `tidewire_kit.lasting`."""
        return ended(*self._tasks)

    def purge_soon(self) -> None:
        """Says that a tenant was deleted."""
        self._purge_now.set()

    async def purge(self) -> None:
        """Removes what is left of deleted tenants: first from the topic, then here, so that a crash repeats a step.

        The tenants' own tombstones stay on the topic: the other services purge by them.
        """
        for tenant in await self._store.deleted_tenants():
            removed = 0
            while refs := await self._store.purge_candidates(tenant, _PURGE_STEP):
                await self._topic.remove(refs)
                await self._store.purge(tenant, refs)
                removed += len(refs)
                await asyncio.sleep(0)
            await self._store.purge(tenant, [])
            logger.info("tenant_purged", tenant_uid=tenant.hex(), objects=removed)
        await self._store.erase_deleted()

    async def _forget(self) -> None:
        await self._store.forget_replays(self._clock.now_us() - REPLAY_SECONDS * 1_000_000)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]], now: asyncio.Event) -> None:
        while True:
            try:
                async with asyncio.timeout(seconds):
                    await now.wait()
            except TimeoutError:
                pass
            now.clear()
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - without heartbeats all other services stand still
                text = error.message if isinstance(error, TidewireError) else repr(error)
                logger.warning("upkeep_failed", work=getattr(work, "__name__", "work"), error=text)
