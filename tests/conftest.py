"""What the tests of the whole platform share: one running platform for those that do not disturb it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tidewire_testkit.whole.platform import UpProcess


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "platform: the whole platform, over its processes")
    config.addinivalue_line("markers", "ledger: the loss ledger's test, a minute of SIGKILLs")


@pytest.fixture(scope="session")
def shared_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    """A platform that lives as long as the session. A test that logs an error on it fails the session's end."""
    process = UpProcess(tmp_path_factory.mktemp("shared") / "data")
    process.start()

    async def begin() -> None:
        await process.wait_serving()
        await process.close_channels()

    asyncio.run(begin())
    yield process
    status = asyncio.run(process.stop())
    assert status == 0, process.stderr()[-2000:]
    assert process.logged_errors() == []


@pytest.fixture
async def up(shared_process: UpProcess) -> AsyncIterator[UpProcess]:
    """The shared platform, with channels of this test's own event loop."""
    yield shared_process
    await shared_process.close_channels()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory for a platform of the test's own."""
    return tmp_path / "data"
