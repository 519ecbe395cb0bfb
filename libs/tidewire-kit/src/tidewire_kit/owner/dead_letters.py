"""Setting a record aside: the record, why, and where it came from, on the dead-letter topic."""

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from tidewire.events.v1.dead_letter_pb2 import DeadLetter
from tidewire.events.v1.telemetry_record_pb2 import TelemetryRecord
from tidewire_kit import topics
from tidewire_kit.clock import Clock
from tidewire_kit.log.port import MAX_RECORD_BYTES, LogRecord, MessageLog, Outgoing

_ENVELOPE_BYTES = 4_096
_MESSAGE_CHARACTERS = 1_000


class DeadLetters:
    """Writes to `tidewire.dead-letter.v1` for one consumer group."""

    def __init__(self, log: MessageLog, clock: Clock, group: str) -> None:
        self._log = log
        self._clock = clock
        self._group = group

    async def put(self, record: LogRecord, reason: str, message: str, *, readings: int | None = None) -> int:
        """Makes the dead letter durable and returns the readings that the record says it carries (0: unreadable).

        `readings` says how many when the record is none of telemetry.

        May write the same letter twice when the process is killed in between. Raises what `MessageLog.produce` does.
        """
        payload = bytes(record.value)
        readings = claimed_readings(payload) if readings is None else readings
        letter = DeadLetter(
            consumer_group=self._group,
            source_topic=record.topic,
            source_partition=record.partition,
            source_offset=record.offset,
            reason=reason,
            message=message[:_MESSAGE_CHARACTERS],
            failure_time=_timestamp(self._clock.now_us()),
            readings=readings,
        )
        if len(payload) + _ENVELOPE_BYTES <= MAX_RECORD_BYTES:
            letter.payload = payload
        else:
            letter.message += (
                f" (payload of {len(payload)} bytes left out; it stays at the source for a while)"
            )
        partition = record.partition % self._log.partitions(topics.DEAD_LETTER)
        value = letter.SerializeToString()
        await self._log.produce(topics.DEAD_LETTER, [Outgoing(partition, record.key, [value])])
        return readings


def claimed_readings(payload: bytes) -> int:
    """The count that a telemetry record carries; 0 when the record cannot be parsed."""
    try:
        return int(TelemetryRecord.FromString(payload).readings)
    except Exception:  # noqa: BLE001 - protobuf's own errors differ between its implementations
        return 0


def _timestamp(time_us: int) -> Any:
    stamp = Timestamp()
    stamp.FromMicroseconds(time_us)
    return stamp
