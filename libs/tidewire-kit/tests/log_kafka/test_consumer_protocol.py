"""Consumers keep the contract with the newer protocol of groups too (TIDEWIRE_KAFKA_GROUP_PROTOCOL=consumer)."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tidewire_kit.log.kafka import KafkaSettings
from tidewire_testkit.log_contract.consumers import ConsumerCases
from tidewire_testkit.log_contract.groups import GroupCases
from tidewire_testkit.servers.kafka import KafkaCluster

pytestmark = [
    pytest.mark.servers,
    pytest.mark.timeout(60, func_only=True),
]  # the broker takes its time to start


@pytest.fixture(scope="module")
def kafka_servers() -> Iterator[str]:
    """A broker that lets members hear of a rebalance as soon as with the classic protocol; its default is 5 s."""
    quick = {
        "group.consumer.min.heartbeat.interval.ms": 300,
        "group.consumer.heartbeat.interval.ms": 300,
        "group.consumer.min.session.timeout.ms": 6000,
        "group.consumer.session.timeout.ms": 6000,
    }
    with KafkaCluster(settings=quick) as cluster:
        yield cluster.bootstrap_servers


class TestKafkaLogWithTheConsumerProtocol(ConsumerCases, GroupCases):
    @pytest.fixture
    def kafka_settings(self, kafka_settings: KafkaSettings) -> KafkaSettings:
        return replace(kafka_settings, group_protocol="consumer")
