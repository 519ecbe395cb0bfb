"""What was added is sent, whatever else was added wrongly, given up, or broken off."""

import asyncio

import grpc
import numpy as np
import pytest

from tidewire_client import AsyncConnection, AsyncTelemetryPublisher, InvalidArgument


@pytest.fixture
async def connection(platform):
    async with AsyncConnection(platform.endpoint, token="secret", tenant="demo") as opened:
        yield opened


def times(platform):
    return sorted(
        time
        for batch in platform.ingestion.accepted.values()
        for frame in batch.frames
        for time in frame.time_unix_us
    )


@pytest.mark.parametrize(
    ("time", "value", "field"), [(2, "n/a", "values"), (2, None, "values"), (1 << 70, 1.0, "time")]
)
async def test_a_reading_that_is_none_is_refused_and_spoils_no_other(
    platform, connection, time, value, field
):
    async with AsyncTelemetryPublisher(connection) as publisher:
        await publisher.add("d", 1, {"a": 1.0})
        with pytest.raises(InvalidArgument) as refused:
            await publisher.add("d", time, {"a": value})
        assert refused.value.field == field
        await publisher.add("d", 3, {"a": 3})
        await publisher.flush()
    assert times(platform) == [1, 3]


async def test_giving_up_an_add_that_waits_for_room_loses_nothing_that_was_added_before(platform, connection):
    platform.ingestion.gate.clear()
    async with AsyncTelemetryPublisher(
        connection, batch_readings=2, buffer_readings=2, linger_seconds=60
    ) as publisher:
        for time in (1, 2, 3):
            await publisher.add("d", time, {"a": 1.0})
        with pytest.raises(TimeoutError):  # the batch of 3 and 4 waits for that of 1 and 2
            async with asyncio.timeout(0.1):
                await publisher.add("d", 4, {"a": 1.0})
        assert publisher.pending_readings == 4
        platform.ingestion.gate.set()
        await publisher.add("d", 5, {"a": 1.0})
        totals = await publisher.flush()
    assert times(platform) == [1, 2, 3, 4, 5]
    assert totals.accepted == 5
    assert totals.missed_batches == 0


async def test_columns_too_large_to_share_a_batch_go_in_batches_of_their_own(platform, connection):
    rows = 150_000  # 3 MB each
    async with AsyncTelemetryPublisher(connection, batch_readings=1_000_000, linger_seconds=60) as publisher:
        for first in (0, rows):
            column = np.arange(first, first + rows)
            await publisher.add_columns("d", column, ["a"], column.astype(float))
        totals = await publisher.flush()
    assert totals.accepted == 2 * rows


async def test_a_stream_that_the_server_cancels_is_opened_again(platform, connection, monkeypatch):
    take = platform.ingestion._take
    cancelled = False

    async def cancel_once(batch, context, token):
        nonlocal cancelled
        if not cancelled:
            cancelled = True
            await context.abort(grpc.StatusCode.CANCELLED, "the proxy in between restarts")
        return await take(batch, context, token)

    monkeypatch.setattr(platform.ingestion, "_take", cancel_once)
    async with asyncio.timeout(5), AsyncTelemetryPublisher(connection) as publisher:
        await publisher.add("d", 1, {"a": 1.0})
        totals = await publisher.flush()
    assert totals.accepted == 1
    assert times(platform) == [1]


async def test_closing_the_connection_under_a_publisher_ends_its_waiting(platform, connection, until):
    platform.ingestion.gate.clear()
    publisher = AsyncTelemetryPublisher(connection, retry_seconds=0)
    await publisher.start()
    await publisher.add("d", 1, {"a": 1.0})
    flushing = asyncio.create_task(publisher.flush())
    await until(lambda: platform.ingestion.seen)
    await connection.close()
    platform.ingestion.gate.set()
    async with asyncio.timeout(5):
        await asyncio.gather(flushing, return_exceptions=True)
        await publisher.close(flush=False)
