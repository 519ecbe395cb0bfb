"""Notices where the registry topic goes back to an older revision, and has the present one published again.

Fed by this process's replica with what it reads from the topic. The replica may know a revision before it is read, when
this process has just put it; so an older one counts only if the newer does not follow within a second.
"""

from tidewire_kit.clock import Clock
from tidewire_kit.observability.logs import get_logger
from tidewire_registry.domain.changes import ObjectRef
from tidewire_registry.ports import RegistryStore

logger = get_logger(__name__)

PATIENCE_SECONDS = 1.0
_MOST = 10_000


class TopicWatch:
    """One per process. `check` is called every second or so."""

    def __init__(self, store: RegistryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._behind: dict[ObjectRef, tuple[str, float]] = {}

    def saw(self, ref: ObjectRef, id_: str, revision: int, newest: int) -> None:
        """Takes a revision read from the topic and the newest one that is known of the object."""
        if revision >= newest:
            self._behind.pop(ref, None)
        elif len(self._behind) < _MOST:
            self._behind.setdefault(ref, (id_, self._clock.monotonic()))

    async def check(self) -> None:
        """Notes as unpublished what has been behind for a second. Raises Unavailable; then it is tried again."""
        before = self._clock.monotonic() - PATIENCE_SECONDS
        late = [(ref, id_) for ref, (id_, since) in self._behind.items() if since <= before]
        if late:
            logger.warning("topic_went_back", objects=len(late))
            await self._store.unpublish(late)
            for ref, _ in late:
                self._behind.pop(ref, None)
