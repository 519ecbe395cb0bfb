"""Requests to cut all epochs: one number for the topic, and what each place did about it."""

from collections.abc import Mapping

from tidewire_kit.cassandra import OUTCOME_UNKNOWN, Consistency
from tidewire_kit.errors import Unavailable
from tidewire_storage.adapters.cassandra.tables import PLACE, Tables, gather_all, insert, select
from tidewire_storage.domain.blocks import TopicPartitionKey

_REQUEST = select("storage_cut_requests", ("request",), ("topic",))
_FIRST = insert("storage_cut_requests", ("topic", "request"), "IF NOT EXISTS")
_NEXT = "UPDATE storage_cut_requests SET request = ? WHERE topic = ? IF request = ?"
_NOTED = select("storage_cuts_noted", ("log_partition", "request", "cut"), ("topic",))
_NOTE = insert("storage_cuts_noted", ("topic", *PLACE, "request", "cut"), "USING TIMESTAMP ?")


class Cuts:
    """Of one topic. On one loop."""

    def __init__(self, tables: Tables, topic: str) -> None:
        self._tables = tables
        self._topic = topic

    async def requested(self) -> int:
        """Number of the last request; 0: there was none."""
        row = await self._tables.row(_REQUEST, self._topic)
        return 0 if row is None else int(row.request)

    async def request(self) -> int:
        """Makes one, and returns its number. A number may be passed over."""
        session = self._tables.session
        first, following = await gather_all([session.prepare(_FIRST), session.prepare(_NEXT)])
        while True:
            row = await self._tables.row(_REQUEST, self._topic, consistency=Consistency.LOCAL_SERIAL)
            number = 1 if row is None else row.request + 1
            try:
                if row is None:
                    outcome = await session.apply(first, (self._topic, number))
                else:
                    outcome = await session.apply(following, (number, self._topic, row.request))
            except Unavailable as error:
                if error.reason != OUTCOME_UNKNOWN:
                    raise
                continue  # it may have been made; one more harms nobody
            if outcome.applied:
                return int(number)

    async def noted(self, request: int) -> dict[int, bool]:
        """Partition → whether it got a cut by this request or a later one."""
        found = await self._tables.rows(_NOTED, self._topic)
        return {row.log_partition: row.cut for row in found if row.request >= request}

    async def note(self, request: int, places: Mapping[TopicPartitionKey, bool]) -> None:
        """Says what places did about it; of several requests the last counts."""
        await gather_all(
            self._tables.rows(_NOTE, self._topic, place.incarnation, place.partition, request, cut, request)
            for place, cut in places.items()
        )
