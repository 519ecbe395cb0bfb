"""A store whose n-th call fails: before it took effect, or after."""

import inspect
from collections.abc import Callable
from typing import Any

from tidewire_storage.adapters.embedded import EmbeddedStore


class FailingStore:
    """Stands between the use cases and a store; `arm` chooses one call."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self._left = -1
        self._after = False
        self._error: Callable[[], BaseException] = RuntimeError
        self.failed: str | None = None
        """The call that has failed since `arm`."""

    def arm(self, number: int, error: Callable[[], BaseException], *, after: bool) -> None:
        """The call of this number from now on raises, instead of what it was to do or after it has done it."""
        self._left, self._after, self._error, self.failed = number, after, error, None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            chosen = self._left == 0
            self._left -= 1
            if chosen and not self._after:
                self.failed = f"before {name}"
                raise self._error()
            result = await method(*args, **kwargs)
            if chosen:
                self.failed = f"after {name}"
                raise self._error()
            return result

        return call
