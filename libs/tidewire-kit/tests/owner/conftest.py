"""A real embedded log with the platform's topics, in a directory of the test's."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tidewire_kit import topics
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings

PARTITIONS = 4


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    log = await open_log(tmp_path)
    yield log
    await log.close()


@pytest.fixture
async def second_log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    log = await open_log(tmp_path)
    yield log
    await log.close()


async def open_log(path: Path) -> EmbeddedLog:
    log = EmbeddedLog(
        path, EmbeddedLogSettings(min_free_bytes=0, segment_bytes=1 << 20, preallocate_bytes=1 << 16)
    )
    await log.start()
    await log.ensure_topics(topics.specs(PARTITIONS))
    return log
