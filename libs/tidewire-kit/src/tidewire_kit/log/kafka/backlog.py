"""Refuses to write what would be removed before it is read: Kafka's retention waits for nobody.

A topic is held for some groups (`TopicSpec.held_for`). When one of them has not committed what is older than 80 % of
the retention, `check` raises LogFull until it has caught up. A group that never committed counts from the beginning.
Looked at in the background every few seconds; `check` only reads the last answer.
"""

import asyncio
import logging
import time
from dataclasses import dataclass

from tidewire_kit.errors import TidewireError
from tidewire_kit.lasting import ended
from tidewire_kit.log.errors import LogFull
from tidewire_kit.log.kafka.admin import Admin

LOOK_SECONDS = 5.0
_SHARE = 0.8
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """A topic that is held; names are the cluster's."""

    topic: str
    partitions: int
    retention_seconds: float
    groups: tuple[str, ...]


class Backlog:
    """See the module."""

    def __init__(self, admin: Admin, look_seconds: float = LOOK_SECONDS) -> None:
        self._admin = admin
        self._look_seconds = look_seconds
        self._held: dict[str, Held] = {}
        self._full: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    def hold(self, held: Held) -> None:
        """Watches a topic from now on."""
        self._held[held.topic] = held
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="kafka backlog")

    def check(self, topic: str) -> None:
        """Raises LogFull when `topic` takes nothing now."""
        why = self._full.get(topic)
        if why is not None:
            raise LogFull(why, retry_delay_seconds=self._look_seconds)

    def ended(self) -> str | None:
        """As of `MessageLog.ended`."""
        return ended(self._task)

    async def close(self) -> None:
        """Looks no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def look(self) -> None:
        """Asks the cluster how far the groups are."""
        for held in tuple(self._held.values()):
            why = await self._overdue(held)
            if why is None:
                if self._full.pop(held.topic, None) is not None:
                    _log.info("topic %s takes records again", held.topic)
            elif self._full.get(held.topic) is None:
                _log.error("topic %s takes no records: %s", held.topic, why)
                self._full[held.topic] = why
            else:
                self._full[held.topic] = why

    async def _overdue(self, held: Held) -> str | None:
        numbers = range(held.partitions)
        limit_ms = int((time.time() - _SHARE * held.retention_seconds) * 1000)
        # The ends first: what is written between two questions, be it because this process slept, is not due.
        ends = await self._admin.end_offsets(held.topic, numbers)
        due = await self._admin.offsets_at(held.topic, numbers, limit_ms)
        # -1: nothing is younger, so all that was there is due.
        due = {number: offset if offset >= 0 else ends[number] for number, offset in due.items()}
        begins = await self._admin.begin_offsets(held.topic, numbers)
        for group in held.groups:
            committed = await self._admin.committed(group, held.topic, numbers)
            late = [number for number in numbers if committed.get(number, 0) < due[number] > begins[number]]
            if late:
                return (
                    f"group {group} has not committed records of {held.topic} that are older than {_SHARE:.0%} of its "
                    f"retention ({held.retention_seconds / 3600:g} h) in {len(late)} of {held.partitions} partitions; "
                    "see whether its processes run, or raise the topic's retention"
                )
        return None

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except TidewireError as error:
                _log.warning("cannot see how far the readers are: %s", error)
            await asyncio.sleep(self._look_seconds)
