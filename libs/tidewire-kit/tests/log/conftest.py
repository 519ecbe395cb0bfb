"""Logs over one data directory, closed after the test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_testkit.log_contract import MessageLogFactory

SMALL = EmbeddedLogSettings(
    segment_bytes=256 << 10, preallocate_bytes=64 << 10, index_interval_bytes=4 << 10, min_free_bytes=0
)


@pytest.fixture
def log_settings() -> EmbeddedLogSettings:
    return SMALL


@pytest.fixture
async def message_log_factory(
    tmp_path: Path, log_settings: EmbeddedLogSettings
) -> AsyncIterator[MessageLogFactory]:
    logs: list[EmbeddedLog] = []

    async def make() -> EmbeddedLog:
        log = EmbeddedLog(tmp_path, log_settings)
        await log.start()
        logs.append(log)
        return log

    yield make
    for log in logs:
        await log.close()
