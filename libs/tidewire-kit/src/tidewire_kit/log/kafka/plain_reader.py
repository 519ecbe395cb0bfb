"""Reads a partition without a group, for `MessageLog.read`: one client per log, made when it is first needed."""

import asyncio
import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from tidewire_kit.errors import Unavailable
from tidewire_kit.log.kafka import config
from tidewire_kit.log.kafka.errors import DEPENDENCY, MOVING_CODES, mapped
from tidewire_kit.log.kafka.messages import to_record
from tidewire_kit.log.kafka.settings import KafkaSettings
from tidewire_kit.log.kafka.worker import Worker
from tidewire_kit.log.port import LogRecord

_WAIT_SECONDS = 0.1
_AT_ONCE = 100


class PlainReader:
    """One read at a time."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._worker = Worker("kafka-reader")
        self._consumer: Any = None

    async def read(
        self, topic: str, partition: int, offset: int, end: int, max_bytes: int
    ) -> list[LogRecord]:
        """Returns records from `offset` on and before `end`; both lie in the log. `topic` is the port's name."""
        return await self._worker.call(self._read, topic, partition, offset, end, max_bytes)

    def ended(self) -> str | None:
        """As of `MessageLog.ended`."""
        return self._worker.ended()

    async def close(self) -> None:
        """Gives up the client."""
        closing = self._worker.call(self._close)
        self._worker.stop()
        await asyncio.wait([closing], timeout=self._settings.request_timeout_seconds)

    def _read(self, topic: str, partition: int, offset: int, end: int, max_bytes: int) -> list[LogRecord]:
        doing = f"cannot read topic {topic}"
        deadline = time.monotonic() + self._settings.request_timeout_seconds
        records: list[LogRecord] = []
        size = 0
        try:
            if self._consumer is None:
                self._consumer = Consumer(config.reader(self._settings, "reader"))
            self._consumer.assign([TopicPartition(self._settings.topic_prefix + topic, partition, offset)])
            while True:
                for message in self._consumer.consume(_AT_ONCE, _WAIT_SECONDS):
                    error = message.error()
                    if error is not None:
                        if error.code() == KafkaError._PARTITION_EOF:
                            return records
                        if error.code() in MOVING_CODES:
                            continue
                        raise mapped(error, doing)
                    record = to_record(topic, message)
                    size += len(record.value)
                    if records and size > max_bytes:
                        return records
                    records.append(record)
                    if record.offset >= end - 1:
                        return records
                if time.monotonic() > deadline:
                    raise Unavailable(DEPENDENCY, f"{doing}: no answer")
        except KafkaException as error:
            raise mapped(error, doing) from error
        finally:
            if self._consumer is not None:
                self._consumer.unassign()

    def _close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
