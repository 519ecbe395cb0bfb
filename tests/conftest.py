"""What the tests of the whole platform share: the backends they run on, and one running platform per backend for those
that do not disturb it.

Each test below tests/platform and tests/ledger runs on the embedded backend, and again on Kafka and Cassandra with the
marker `servers`; the markers `embedded` and `distributed` say that a test runs on that backend alone.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tidewire_testkit.whole.backend import PATIENCE, Backend, DistributedBackend, EmbeddedBackend, use
from tidewire_testkit.whole.platform import UpProcess


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "platform: the whole platform, over its processes")
    config.addinivalue_line("markers", "ledger: the loss ledger's test, a minute of SIGKILLs")
    config.addinivalue_line("markers", "embedded: about the data directory, so on that backend alone")
    config.addinivalue_line("markers", "distributed: about several machines, so on that backend alone")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" not in metafunc.fixturenames:
        return
    only = {marker.name for marker in metafunc.definition.iter_markers()} & {"embedded", "distributed"}
    marks = {"embedded": (), "distributed": (pytest.mark.servers,)}
    backends = [pytest.param(name, marks=marks[name]) for name in marks if not only or name in only]
    metafunc.parametrize("backend", backends, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets tests take longer on the backend that takes longer."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        limit = item.get_closest_marker("timeout")
        if callspec and callspec.params.get("backend") == "distributed" and limit is not None:
            item.add_marker(pytest.mark.timeout(limit.args[0] * PATIENCE), append=False)


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """The backend of this run of the test."""
    if request.param == "embedded":
        return EmbeddedBackend()
    return DistributedBackend(
        request.getfixturevalue("kafka_servers"), request.getfixturevalue("cassandra_contact_points")
    )


@pytest.fixture
def on_backend(backend: Backend, tmp_path: Path) -> Iterator[Backend]:
    """Runs the platforms of the test on its backend and removes afterwards what they have left on servers."""
    use(backend)
    yield backend
    backend.release(tmp_path)


@pytest.fixture(scope="session")
def shared_process(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    """A platform that lives as long as the session. A test that logs an error on it fails the session's end."""
    use(backend)
    directory = tmp_path_factory.mktemp("shared")
    process = UpProcess(directory / "data")
    process.start()

    async def begin() -> None:
        try:
            await process.wait_serving()
        except BaseException:
            await process.ensure_ended()
            raise
        await process.close_channels()

    asyncio.run(begin())
    yield process
    status = asyncio.run(process.stop())
    backend.release(directory)
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
