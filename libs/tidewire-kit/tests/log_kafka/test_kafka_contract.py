"""The Kafka log keeps the contract of the port, on a real broker."""

import pytest

from tidewire_testkit.log_contract import MessageLogContract

pytestmark = pytest.mark.servers


class TestKafkaLog(MessageLogContract):
    partitions_setting = "TIDEWIRE_KAFKA_PARTITIONS"
    lacking = frozenset({"atomic_put"})
