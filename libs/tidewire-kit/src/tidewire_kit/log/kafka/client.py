"""The blocking half of a consumer: the client library's consumer with its rebalance callbacks, on one worker thread.

`consumer` calls it through a `Worker`; nothing here runs on the event loop. A callback of the library runs inside
`fetch` or `close`; it hands a `Rebalance` to the event loop and serves further calls (commits) until it is answered.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place

from tidewire_kit.log.kafka.config import Config
from tidewire_kit.log.kafka.errors import MOVING_CODES, kafka_error, mapped
from tidewire_kit.log.kafka.messages import to_record
from tidewire_kit.log.kafka.worker import Worker
from tidewire_kit.log.port import LogRecord, TopicPartition

_MOST_RECORDS = 500
_NEW_TOPIC_SECONDS = 10.0
"""So long may a broker not know of a topic that was just made."""
_RESET_CODES = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
_PASSING_CODES = frozenset(
    {
        KafkaError._MAX_POLL_EXCEEDED,  # `lost` follows
        KafkaError._PARTITION_EOF,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
    }
)


class Kind(Enum):
    """What happens to partitions in a rebalance."""

    ASSIGNED = "assigned"
    REVOKED = "revoked"
    LOST = "lost"


@dataclass(slots=True)
class Rebalance:
    """Handed to the event loop; `answer` lets the thread go on."""

    kind: Kind
    partitions: tuple[TopicPartition, ...]
    starts: Mapping[TopicPartition, int] = field(default_factory=dict)
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Orders:
    """What is to be changed before the next fetch."""

    pause: tuple[TopicPartition, ...] = ()
    resume: tuple[TopicPartition, ...] = ()
    seek: Mapping[TopicPartition, int] = field(default_factory=dict)


@dataclass(slots=True)
class Fetched:
    """What a fetch brought."""

    records: list[LogRecord] = field(default_factory=list)
    out_of_range: list[TopicPartition] = field(default_factory=list)
    """Partitions whose position is not in the log (any more)."""
    error: Exception | None = None


class Client:
    """See the module."""

    def __init__(
        self,
        settings: Config,
        topics: Sequence[str],
        prefix: str,
        worker: Worker,
        on_rebalance: Callable[[Rebalance], None],
    ) -> None:
        """`topics` are the port's names. `on_rebalance` is called on the event loop."""
        self._worker = worker
        self._prefix = prefix
        self._on_rebalance = on_rebalance
        self._member: str | None = None
        self._patient_until = time.monotonic() + _NEW_TOPIC_SECONDS
        self.down = False
        """Set when no broker could be reached; whoever finds one clears it."""
        self._consumer = Consumer(settings | {"error_cb": self._on_error})
        self._consumer.subscribe(
            [prefix + topic for topic in topics],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def fetch(self, seconds: float, orders: Orders) -> Fetched:
        """Waits up to `seconds` for records and returns what there is then."""
        if orders.pause:
            self._consumer.pause(self._places(orders.pause))
        for place, offset in orders.seek.items():
            self._seek(place, offset)
        if orders.resume:
            self._consumer.resume(self._places(orders.resume))
        first = self._consumer.poll(seconds)
        if first is None:
            return Fetched()
        fetched = Fetched()
        for message in (first, *self._consumer.consume(_MOST_RECORDS, 0)):
            error = message.error()
            if error is None:
                fetched.records.append(to_record(message.topic()[len(self._prefix) :], message))
            else:
                self._note(fetched, message, error)
        return fetched

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commits, as the member that was given the partitions; raises KafkaException."""
        if self._consumer.memberid() != self._member:
            # Without a member's id the broker would take it from anybody, as long as the group is empty.
            raise KafkaException(KafkaError(KafkaError._ASSIGNMENT_LOST))
        places = [
            Place(self._prefix + topic, partition, offset) for (topic, partition), offset in offsets.items()
        ]
        for place in self._consumer.commit(offsets=places, asynchronous=False):
            if place.error is not None:
                raise KafkaException(place.error)

    def close(self) -> None:
        """Leaves the group."""
        self._consumer.close()

    # Inside

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.down = True

    def _note(self, fetched: Fetched, message: Any, error: KafkaError) -> None:
        code = error.code()
        if code in _RESET_CODES and message.topic() is not None:
            fetched.out_of_range.append((message.topic()[len(self._prefix) :], message.partition()))
        elif code in MOVING_CODES and time.monotonic() < self._patient_until:
            return
        elif code not in _PASSING_CODES:
            fetched.error = mapped(error, f"cannot read {message.topic() or 'the subscribed topics'}")

    def _seek(self, place: TopicPartition, offset: int) -> None:
        target = Place(self._prefix + place[0], place[1], offset)
        try:
            self._consumer.seek(target)
        except KafkaException as error:
            found = kafka_error(error)
            if found is None or found.code() != KafkaError._STATE:
                raise
            # It is not being fetched: just assigned, or stopped at an offset that does not exist.
            self._consumer.incremental_unassign([target])
            self._consumer.incremental_assign([target])

    def _on_assign(self, consumer: Any, places: list[Any]) -> None:
        self._member = consumer.memberid()
        starts = self._rebalance(Kind.ASSIGNED, places).starts
        for place in places:
            place.offset = starts.get((place.topic[len(self._prefix) :], place.partition), OFFSET_BEGINNING)
        consumer.incremental_assign(places)

    def _on_revoke(self, consumer: Any, places: list[Any]) -> None:
        self._rebalance(Kind.REVOKED, places)
        consumer.incremental_unassign(places)

    def _on_lost(self, consumer: Any, places: list[Any]) -> None:
        self._rebalance(Kind.LOST, places)
        consumer.incremental_unassign(places)

    def _rebalance(self, kind: Kind, places: Sequence[Any]) -> Rebalance:
        partitions = tuple(sorted((place.topic[len(self._prefix) :], place.partition) for place in places))
        request = Rebalance(kind, partitions)
        if partitions:
            self._worker.tell(self._on_rebalance, request)
            self._worker.serve(lambda: request.answered)
        return request

    def _places(self, partitions: Sequence[TopicPartition]) -> list[Any]:
        return [Place(self._prefix + topic, partition) for topic, partition in partitions]
