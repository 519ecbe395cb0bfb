"""Which partitions this process owns in a group: what it should own, and the locks that make it true.

Assignment is computed by each member for itself and may differ between two of them for a moment; the lock files in
`run/owners/` decide. A lock is given back only after the partition's `revoked` was awaited, and the kernel gives it
back when a process dies, so two owners never overlap.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tidewire_kit.log.embedded.assignment import assign
from tidewire_kit.log.embedded.files import FileLock
from tidewire_kit.log.embedded.members import Membership
from tidewire_kit.log.port import TopicPartition


class Ownership:
    """The locks of one consumer. Calls block for some µs (opening and locking small files)."""

    def __init__(
        self, directory: Path, group: str, partitions: Mapping[str, int], membership: Membership
    ) -> None:
        self._directory = directory / group
        self._group = group
        self._partitions = partitions
        self._membership = membership
        self._locks: dict[TopicPartition, FileLock] = {}

    @property
    def owned(self) -> frozenset[TopicPartition]:
        """What is locked by this consumer."""
        return frozenset(self._locks)

    def desired(self) -> frozenset[TopicPartition]:
        """What the live members' assignment gives to this process."""
        return frozenset(
            (topic, partition)
            for topic, count in self._partitions.items()
            for partition in assign(count, self._membership.consumers(self._group, topic)).get(
                self._membership.member_id, ()
            )
        )

    def acquire(self, wanted: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Locks what nobody else holds; returns what was got, sorted."""
        got = []
        for topic, partition in sorted(wanted):
            directory = self._directory / topic
            directory.mkdir(parents=True, exist_ok=True)
            lock = FileLock(directory / f"{partition}.lock")
            if lock.try_acquire():
                self._locks[topic, partition] = lock
                got.append((topic, partition))
            else:
                lock.close()
        return got

    def release(self, partitions: Iterable[TopicPartition]) -> None:
        """Gives locks back."""
        for partition in partitions:
            lock = self._locks.pop(partition, None)
            if lock is not None:
                lock.close()
