"""How an adapter says what it truly cannot do: by the name of a capability, never by leaving a case out.

A case that needs one is decorated with `needs("name")`. An adapter's test class declares
`lacking = frozenset({"name"})`; its case is then run all the same and must fail: when it passes, the declaration is
wrong and the test fails.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

CAPABILITIES = {
    "atomic_put": "a reader that begins while several keys are put sees all of them or none",
}
"""Name → what an adapter that has it promises."""


class Capable:
    """Base of all cases."""

    lacking: frozenset[str] = frozenset()
    """Capabilities that the adapter does not have."""


Case = Callable[..., Awaitable[None]]


def needs(capability: str) -> Callable[[Case], Case]:
    """Marks a case that only holds for adapters with `capability`."""
    assert capability in CAPABILITIES

    def decorate(case: Case) -> Case:
        @functools.wraps(case)
        async def run(self: Capable, *arguments: Any, **named: Any) -> None:
            if capability not in self.lacking:
                await case(self, *arguments, **named)
                return
            try:
                await case(self, *arguments, **named)
            except AssertionError:
                pytest.xfail(f"lacking: {CAPABILITIES[capability]}")
            pytest.fail(f"the adapter has {capability}, which it declares as lacking")

        run.__signature__ = inspect.signature(case)  # type: ignore[attr-defined]  # fixtures are found by it
        return run

    return decorate
