import asyncio
import uuid

import numpy as np
import pytest
from google.rpc import code_pb2

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire_client import (
    AsyncConnection,
    AsyncTelemetryPublisher,
    BufferFull,
    FileToken,
    InternalError,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)


def rows(batches):
    """(device, time, value) of every row of one metric, in order."""
    return [
        (
            batch.devices[frame.device_index[row] if frame.device_index else 0],
            frame.time_unix_us[row],
            frame.values[row],
        )
        for batch in batches
        for frame in batch.frames
        for row in range(len(frame.time_unix_us))
    ]


@pytest.fixture
async def connection(platform):
    async with AsyncConnection(platform.endpoint, token="secret", tenant="demo") as opened:
        yield opened


async def test_what_is_added_is_durable_after_flush(platform, connection):
    results = []
    async with AsyncTelemetryPublisher(connection, on_result=results.append) as publisher:
        for n in range(100):
            await publisher.add("d", n + 1, {"a": float(n)})
        totals = await publisher.flush()
        assert publisher.pending_readings == 0
    assert rows(platform.ingestion.accepted.values()) == [("d", n + 1, float(n)) for n in range(100)]
    assert totals.accepted == 100
    assert [result.ok for result in results] == [True]
    assert platform.ingestion.seen[0].token == "secret"


async def test_a_batch_goes_when_it_is_full_or_its_time_is_up(platform, connection, until):
    async with AsyncTelemetryPublisher(connection, batch_readings=10, linger_seconds=0.01) as publisher:
        for n in range(25):
            await publisher.add("d", n + 1, {"a": float(n)})
        await until(lambda: publisher.totals.accepted == 25)
    batches = list(platform.ingestion.accepted.values())
    assert [len(batch.frames[0].values) for batch in batches[:2]] == [10, 10]
    assert [batch.sequence for batch in batches] == list(range(1, len(batches) + 1))


async def test_large_columns_are_cut_and_name_only_their_devices(platform, connection):
    devices = [f"d{n}" for n in range(100)]
    index = np.repeat(np.arange(100), 50)
    times = np.arange(5000) + 1
    async with AsyncTelemetryPublisher(connection, batch_readings=1000) as publisher:
        await publisher.add_columns(devices, times, ["a"], times.astype(float), device_index=index)
    batches = list(platform.ingestion.accepted.values())
    assert [len(batch.devices) for batch in batches] == [20] * 5
    assert rows(batches) == [(f"d{n // 50}", n + 1, float(n + 1)) for n in range(5000)]


async def test_a_lost_acknowledgement_is_asked_for_again_with_the_same_batch(platform, connection):
    platform.ingestion.script.extend(["accept", "lose"])
    results = []
    async with AsyncTelemetryPublisher(connection, batch_readings=1, on_result=results.append) as publisher:
        for n in range(5):
            await publisher.add("d", n + 1, {"a": float(n)})
    seen = [one.batch for one in platform.ingestion.seen]
    assert [batch.sequence for batch in seen] == [1, 2, 2, 3, 4, 5]
    assert seen[1] == seen[2]
    assert len(platform.ingestion.accepted) == 5
    assert [result.attempts for result in results][:2] == [1, 2]
    assert all(result.ok for result in results)


async def test_a_restart_elsewhere_loses_nothing_and_keeps_the_order(platform, connection, until):
    publisher = AsyncTelemetryPublisher(connection, batch_readings=10, window=4)
    async with publisher:

        async def produce():
            for n in range(2000):
                await publisher.add("d", n + 1, {"a": float(n)})
                if n % 50 == 0:
                    await asyncio.sleep(0)

        producing = asyncio.create_task(produce())
        for _ in range(3):
            seen = len(platform.ingestion.accepted)
            await until(lambda seen=seen: len(platform.ingestion.accepted) >= seen + 20)
            await platform.restart_ingestion()
        await producing
        totals = await publisher.flush()
    assert totals.accepted == 2000
    assert rows(platform.ingestion.accepted.values()) == [("d", n + 1, float(n)) for n in range(2000)]
    assert totals.resent_batches > 0


async def test_a_batch_refused_for_now_comes_again_after_the_delay_asked_for(
    platform, connection, rich_status
):
    full = rich_status(code_pb2.RESOURCE_EXHAUSTED, "LOG_FULL", "the log is full", retry_seconds=0.3)
    platform.ingestion.script.extend([full, full])
    async with AsyncTelemetryPublisher(connection, batch_readings=1, window=2) as publisher:
        for n in range(4):
            await publisher.add("d", n + 1, {"a": float(n)})
    seen = platform.ingestion.seen
    assert [one.batch.sequence for one in seen] == [1, 2, 1, 2, 3, 4]
    assert seen[2].at - seen[1].at >= 0.3
    assert seen[0].batch == seen[2].batch
    assert publisher.totals.accepted == 4
    assert publisher.trouble.reason == "LOG_FULL"


async def test_refused_rows_are_told_with_device_and_time(platform, connection):
    refusal = ingestion_pb2.Refusal(
        reason=ingestion_pb2.DEVICE_UNKNOWN,
        frame=0,
        rows=1,
        readings=1,
        first_rows=[1],
        message="no such device",
    )
    platform.ingestion.script.append(refusal)
    told = []
    async with AsyncTelemetryPublisher(connection, on_refusal=told.append) as publisher:
        await publisher.add("known", 1, {"a": 1.0})
        await publisher.add("unknown", 2, {"a": 2.0})
    assert [(one.reason, one.message, one.examples()) for one in told] == [
        ("DEVICE_UNKNOWN", "no such device", [("unknown", 2)])
    ]
    assert publisher.totals.accepted == 1
    assert publisher.totals.refused == {"DEVICE_UNKNOWN": 1}


async def test_a_batch_refused_for_good_does_not_stop_the_next(platform, connection, rich_status):
    bad = rich_status(code_pb2.INVALID_ARGUMENT, "BAD_FRAME", "frames[0]: no rows", field_name="frames[0]")
    platform.ingestion.script.append(bad)
    results = []
    async with AsyncTelemetryPublisher(connection, batch_readings=1, on_result=results.append) as publisher:
        await publisher.add("d", 1, {"a": 1.0})
        await publisher.add("d", 2, {"a": 2.0})
    assert [type(result.error) for result in results] == [InvalidArgument, type(None)]
    assert results[0].error.field == "frames[0]"
    assert (publisher.totals.failed, publisher.totals.accepted) == (1, 1)


async def test_a_callback_that_fails_does_not_stop_the_sending(platform, connection, caplog):
    def fail(result):
        raise ValueError("mine")

    async with AsyncTelemetryPublisher(connection, batch_readings=1, on_result=fail) as publisher:
        await publisher.add("d", 1, {"a": 1.0})
        await publisher.add("d", 2, {"a": 2.0})
    assert publisher.totals.accepted == 2
    assert "callback" in caplog.text


async def test_an_expired_token_is_renewed_on_the_way(platform, until, rich_status):
    class Tokens:
        current = "first"

        def token(self):
            return self.current

        def renew(self):
            self.current = "second"

    expired = rich_status(code_pb2.UNAUTHENTICATED, "TOKEN_EXPIRED", "the token has expired")
    platform.ingestion.refuse_call = lambda token: expired if token == "first" else None
    async with (
        AsyncConnection(platform.endpoint, token=Tokens(), tenant="demo") as connection,
        AsyncTelemetryPublisher(connection) as publisher,
    ):
        await publisher.add("d", 1, {"a": 1.0})
    assert {one.token for one in platform.ingestion.seen} == {"second"}


async def test_a_caller_that_may_not_publish_is_told_at_once(platform, connection, rich_status):
    denied = rich_status(code_pb2.PERMISSION_DENIED, "PERMISSION_DENIED", "readers do not publish")
    platform.ingestion.refuse_call = lambda token: denied
    results = []
    publisher = AsyncTelemetryPublisher(connection, on_result=results.append)
    await publisher.start()
    await publisher.add("d", 1, {"a": 1.0})
    with pytest.raises(PermissionDenied, match="readers"):
        await publisher.flush()
    with pytest.raises(PermissionDenied):
        await publisher.add("d", 2, {"a": 1.0})
    await publisher.close(flush=False)
    assert [type(result.error) for result in results] == [PermissionDenied]
    assert platform.ingestion.calls == 1


async def test_a_token_that_stays_refused_is_given_up(platform, connection, monkeypatch, rich_status):
    monkeypatch.setattr("tidewire_client.sender._AUTHENTICATION_SECONDS", 0.2)
    unknown = rich_status(code_pb2.UNAUTHENTICATED, "TOKEN_UNKNOWN_KEY", "no such credential")
    platform.ingestion.refuse_call = lambda token: unknown
    publisher = AsyncTelemetryPublisher(connection, on_result=lambda result: None)
    await publisher.start()
    await publisher.add("d", 1, {"a": 1.0})
    with pytest.raises(Unauthenticated):
        await publisher.flush()
    await publisher.close(flush=False)
    assert platform.ingestion.calls > 1


async def test_without_a_platform_it_gives_up_when_told_to(platform):
    await platform.registry_server.stop()
    async with AsyncConnection(platform.endpoint, token="t", tenant="demo") as connection:
        publisher = AsyncTelemetryPublisher(connection, retry_seconds=0.2, on_result=lambda result: None)
        await publisher.start()
        await publisher.add("d", 1, {"a": 1.0})
        with pytest.raises(Unavailable, match="cannot reach registry"):
            await publisher.flush()
        await publisher.close(flush=False)


async def test_adding_waits_while_the_buffer_is_full(platform, connection, until):
    platform.ingestion.gate.clear()
    publisher = AsyncTelemetryPublisher(connection, batch_readings=10, buffer_readings=30)
    async with publisher:

        async def produce():
            for n in range(100):
                await publisher.add("d", n + 1, {"a": float(n)})

        producing = asyncio.create_task(produce())
        await until(lambda: publisher.pending_readings >= 40)
        assert not producing.done()
        assert publisher.pending_readings <= 40  # the buffer, and the batch that is being filled
        platform.ingestion.gate.set()
        await producing
    assert publisher.totals.accepted == 100


async def test_adding_can_raise_instead_of_waiting(platform, connection):
    platform.ingestion.gate.clear()
    publisher = AsyncTelemetryPublisher(connection, batch_readings=10, buffer_readings=30, when_full="raise")
    async with publisher:
        for n in range(30):
            await publisher.add("d", n + 1, {"a": float(n)})
        with pytest.raises(BufferFull):
            await publisher.add("d", 100, {"a": 1.0})
        platform.ingestion.gate.set()
        await publisher.flush()
        await publisher.add("d", 1000, {"a": 1.0})


async def test_exactly_one_batch_with_the_id_that_was_asked_for(platform, connection):
    batch_id = uuid.uuid4()
    async with AsyncTelemetryPublisher(connection, batch_readings=10, count=False) as publisher:
        future = await publisher.send_columns(
            "d", [1, 2], ["a"], [1.0, np.nan], batch_id=batch_id, tag="mine"
        )
        result = await future
    assert result.batch_id == batch_id
    assert result.batch.tag == "mine"
    assert result.batch.readings == 1
    assert list(platform.ingestion.accepted) == [str(batch_id)]
    assert platform.ingestion.seen[0].batch.sequence == 0


async def test_unary_calls_survive_the_same_troubles(platform, connection, rich_status):
    full = rich_status(code_pb2.RESOURCE_EXHAUSTED, "LOG_FULL", "the log is full", retry_seconds=0.05)
    bad = rich_status(code_pb2.INVALID_ARGUMENT, "BAD_FRAME", "no rows")
    platform.ingestion.script.extend(["lose", full, bad])
    results = []
    async with AsyncTelemetryPublisher(
        connection, batch_readings=1, streaming=False, on_result=results.append
    ) as publisher:
        for n in range(4):
            await publisher.add("d", n + 1, {"a": float(n)})
    assert [one.batch.sequence for one in platform.ingestion.seen] == [1, 1, 1, 2, 3, 4]
    assert [type(result.error) for result in results] == [InvalidArgument] + [type(None)] * 3
    assert results[0].attempts == 3


async def test_a_stream_that_acknowledges_nothing_is_opened_again(platform, connection):
    platform.ingestion.gate.clear()
    async with AsyncTelemetryPublisher(connection, acknowledge_seconds=0.2) as publisher:
        await publisher.add("d", 1, {"a": 1.0})
        await publisher.ship()
        while platform.ingestion.calls < 2:
            await asyncio.sleep(0.01)
        platform.ingestion.gate.set()
    assert publisher.totals.accepted == 1
    assert len(platform.ingestion.accepted) == 1


async def test_closing_without_flush_tells_what_was_left(platform, connection):
    platform.ingestion.gate.clear()
    results = []
    publisher = AsyncTelemetryPublisher(connection, on_result=results.append)
    await publisher.start()
    await publisher.add("d", 1, {"a": 1.0})
    await publisher.ship()
    await publisher.close(flush=False)
    assert [result.error.reason for result in results] == ["PUBLISHER_CLOSED"]


async def test_a_row_without_device_or_values_is_refused(platform, connection):
    async with AsyncTelemetryPublisher(connection) as publisher:
        with pytest.raises(InvalidArgument, match="device"):
            await publisher.add("", None, {"a": 1.0})
        with pytest.raises(InvalidArgument, match="values"):
            await publisher.add("d", None, {})


async def test_without_a_token_file_it_says_so(platform, tmp_path, monkeypatch):
    monkeypatch.setattr("tidewire_client.sender._AUTHENTICATION_SECONDS", 0.1)
    async with AsyncConnection(platform.endpoint, token="t", tenant="demo") as connection:
        await connection.addresses("ingestion")
        connection.token_source = FileToken(tmp_path / "none")
        publisher = AsyncTelemetryPublisher(connection, on_result=lambda result: None)
        await publisher.start()
        await publisher.add("d", 1, {"a": 1.0})
        with pytest.raises(InvalidArgument, match="token file"):
            await publisher.flush()
        await publisher.close(flush=False)


async def test_a_fault_of_the_sender_ends_in_an_error_not_in_silence(
    platform, connection, monkeypatch, caplog
):
    def broken(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr("tidewire_client.sender.result_of", broken)
    publisher = AsyncTelemetryPublisher(connection, on_result=lambda result: None)
    await publisher.start()
    await publisher.add("d", 1, {"a": 1.0})
    with pytest.raises(InternalError, match="a bug"):
        await publisher.flush()
    await publisher.close(flush=False)
