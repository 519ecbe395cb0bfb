"""What a consumer owns and where it stands: pure bookkeeping between the fetching thread and the caller of `poll`.

Records that were fetched wait here until `take` hands them out. The client library runs ahead: what it fetched before a
seek, or of a partition that has gone since, is dropped on arrival.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tidewire_kit.log.errors import NotOwner
from tidewire_kit.log.kafka.client import Fetched, Orders
from tidewire_kit.log.port import LogRecord, TopicPartition


class Positions:
    """Used on the event loop only."""

    def __init__(self) -> None:
        self.assigned: frozenset[TopicPartition] = frozenset()
        self.trouble: BaseException | None = None
        """What a fetch failed with; raised by the next `take` that has nothing to hand out."""
        self._next: dict[TopicPartition, int] = {}
        self._highest: dict[TopicPartition, int] = {}
        """Up to here the log is known to reach."""
        self._log_time_us: dict[TopicPartition, int] = {}
        self._waiting: deque[LogRecord] = deque()
        self._held: dict[TopicPartition, list[LogRecord]] = {}
        """Fetched records of paused partitions."""
        self._paused: set[TopicPartition] = set()
        self._to_pause: set[TopicPartition] = set()
        self._to_resume: set[TopicPartition] = set()
        self._seeks: dict[TopicPartition, int] = {}
        """Ordered and not yet done: what arrives of these is from before."""
        self._unsure: set[TopicPartition] = set()
        self._after_end: dict[TopicPartition, tuple[int, int]] = {}

    @property
    def unsure(self) -> list[TopicPartition]:
        """Partitions whose position may lie outside of the log; `confine` settles it."""
        return sorted(self._unsure)

    @property
    def after_end(self) -> tuple[TopicPartition, int, int] | None:
        """A partition whose position lies after the end: (partition, position, end)."""
        return next(((place, *where) for place, where in self._after_end.items()), None)

    # Partitions

    def add(self, starts: Mapping[TopicPartition, int]) -> None:
        """Takes over partitions, to go on at these offsets."""
        self.assigned |= starts.keys()
        self._next |= starts

    def remove(self, partitions: Sequence[TopicPartition]) -> None:
        """Forgets partitions and what was fetched of them."""
        self.assigned -= set(partitions)
        self._waiting = deque(r for r in self._waiting if (r.topic, r.partition) in self.assigned)
        for place in partitions:
            for known in (self._next, self._highest, self._seeks, self._log_time_us):
                known.pop(place, None)
            self._held.pop(place, None)
            self._after_end.pop(place, None)
            for marked in (self._paused, self._to_pause, self._to_resume, self._unsure):
                marked.discard(place)

    def confine(self, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        """Moves positions before the beginning to it, and notes those after the end."""
        for place, end in ends.items():
            self._unsure.discard(place)
            if place not in self._next:
                continue
            self._highest[place] = max(end, self._highest.get(place, 0))
            if self._next[place] > end:
                self._after_end[place] = (self._next[place], end)
            elif self._next[place] < begins[place]:
                self._next[place] = begins[place]
                if place in self._seeks:
                    self._seeks[place] = begins[place]

    def of(self, place: TopicPartition) -> int:
        """The offset of the next record to hand out; NotOwner."""
        self._check(place)
        return self._next[place]

    def seek(self, place: TopicPartition, offset: int) -> None:
        """Goes on at `offset`; NotOwner."""
        self._check(place)
        offset = max(0, offset)
        self._next[place] = offset
        self._log_time_us.pop(place, None)
        self._after_end.pop(place, None)
        self._held.pop(place, None)
        self._waiting = deque(r for r in self._waiting if (r.topic, r.partition) != place)
        self._seeks[place] = offset
        if offset > self._highest.get(place, 0):
            self._unsure.add(place)

    def order_seeks(self, starts: Mapping[TopicPartition, int]) -> None:
        """Has the thread go on at these offsets, which are within the log."""
        self._seeks |= starts

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Hands out nothing of these."""
        for place in partitions:
            if place in self.assigned and place not in self._paused:
                self._paused.add(place)
                self._to_resume.discard(place)
                self._to_pause.add(place)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Undoes `pause`; what was fetched before is handed out first."""
        for place in partitions:
            if place in self._paused:
                self._paused.discard(place)
                self._to_pause.discard(place)
                self._to_resume.add(place)
                self._waiting.extendleft(reversed(self._held.pop(place, [])))

    # Fetching

    def orders(self) -> Orders:
        """What the thread has to do before its next fetch; it counts as done unless `not_done` says otherwise."""
        orders = Orders(tuple(self._to_pause), tuple(self._to_resume), dict(self._seeks))
        self._to_pause.clear()
        self._to_resume.clear()
        self._seeks.clear()
        return orders

    def not_done(self, orders: Orders) -> None:
        """Orders the same again, where nothing newer was ordered since."""
        self._to_pause |= {place for place in orders.pause if place in self._paused}
        self._to_resume |= {p for p in orders.resume if p in self.assigned and p not in self._paused}
        for place, offset in orders.seek.items():
            if place in self.assigned:
                self._seeks.setdefault(place, offset)

    def keep(self, fetched: Fetched) -> None:
        """Takes what a fetch brought."""
        self.trouble = fetched.error or self.trouble
        for record in fetched.records:
            place = (record.topic, record.partition)
            if place not in self.assigned or place in self._seeks or record.offset < self._next[place]:
                continue
            self._highest[place] = record.offset + 1
            before = self._log_time_us.get(place, 0)
            if record.appended_at_us < before:  # another leader, whose clock is behind
                record = replace(record, appended_at_us=before)
            self._log_time_us[place] = record.appended_at_us
            if place in self._paused:
                self._held.setdefault(place, []).append(record)
            else:
                self._waiting.append(record)
        for place in fetched.out_of_range:
            if place in self.assigned and place not in self._seeks:
                self._seeks[place] = self._next[place]
                self._unsure.add(place)

    def take(self, max_bytes: int) -> list[LogRecord]:
        """Hands out what waits, at least one record and then up to `max_bytes`; raises `trouble`."""
        taken: list[LogRecord] = []
        room = max_bytes
        while self._waiting:
            record = self._waiting[0]
            room -= len(record.value)
            if taken and room < 0:
                break
            self._waiting.popleft()
            place = (record.topic, record.partition)
            if place in self._paused:
                self._held.setdefault(place, []).append(record)
                room += len(record.value)
                continue
            self._next[place] = record.offset + 1
            taken.append(record)
        if not taken and self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            raise trouble
        return taken

    def _check(self, place: TopicPartition) -> None:
        if place not in self.assigned:
            raise NotOwner(*place)
