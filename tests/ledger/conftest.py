"""Every test here runs on each backend."""

import pytest


@pytest.fixture(autouse=True)
def _on_backend(on_backend: object) -> None:
    """Chooses the backend of the platforms that the test starts."""
