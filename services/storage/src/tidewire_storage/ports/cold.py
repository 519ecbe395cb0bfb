"""What the cold tier needs from the world: a place for objects. A directory and an S3 bucket are such places.

`tests/contract/test_cold_store.py` says in tests what this module says in words. Methods are called on the process's
loop and do not block it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from tidewire_kit.errors import Unavailable


class ColdUnavailable(Unavailable):
    """The object storage does not answer. Nothing was changed, or what was put may be there in full."""

    def __init__(self, why: str) -> None:
        super().__init__(
            "cold storage",
            f"{why}. Older days lie there: check TIDEWIRE_STORAGE_COLD_URL and the object storage, and ask again",
            reason="COLD_STORAGE_UNAVAILABLE",
            retry_delay_seconds=5.0,
        )


@dataclass(frozen=True, slots=True)
class ColdObject:
    """An object that is there."""

    name: str
    size: int
    modified_us: int


class ColdStore(Protocol):
    """Objects by name. They do not change; a name is used once. All methods raise ColdUnavailable."""

    place: str
    """For people: without secrets."""

    async def put(self, name: str, data: bytes) -> None:
        """Stores an object, whole or not at all; when it returns the object is durable."""

    async def ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Bytes at (position, length)s, in order; shorter where the object ends. None: there is no such object."""

    async def objects(self, prefix: str = "") -> list[ColdObject]:
        """What is there with names that begin with `prefix`, which is empty or ends with a slash; by name."""

    async def remove(self, names: Collection[str]) -> None:
        """Removes objects; those that are not there are passed over."""

    async def close(self) -> None:
        """Lets go of threads and connections. Idempotent."""
