"""Events from the log to the store: the `EventSink` of storage's event owner."""

from collections.abc import Callable, Collection, Mapping

from tidewire_kit.log.port import TopicPartition
from tidewire_kit.owner.events import EventWork
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.ports import EventAccount, EventFlush, EventStore


class StoreEvents:
    """All methods on one loop."""

    def __init__(
        self,
        store: EventStore,
        incarnation: bytes,
        on_stored: Callable[[EventAccount], None] = lambda account: None,
    ) -> None:
        """`incarnation` is that of the events topic."""
        self._store = store
        self._incarnation = incarnation
        self._on_stored = on_stored
        self._offsets: dict[TopicPartition, int | None] = {}

    async def load(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """See EventSink. Of a partition that is not stored at all, all that the log still has is read."""
        places = {partition: TopicPartitionKey(self._incarnation, partition[1]) for partition in partitions}
        stored = await self._store.progress(list(places.values()))
        for partition, place in places.items():
            self._offsets[partition] = stored[place]
        return {partition: stored[place] or 0 for partition, place in places.items()}

    async def apply(self, work: EventWork) -> None:
        """See EventSink."""
        place = TopicPartitionKey(self._incarnation, work.partition[1])
        flush = EventFlush(
            place, self._offsets[work.partition], work.next_offset, work.records, work.dead_lettered
        )
        account = await self._store.commit(flush)
        self._offsets[work.partition] = work.next_offset
        self._on_stored(account)
