"""Values that the chart does not know, or that contradict one another, are refused, and the message says what to do."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

DISTRIBUTED = {
    "backend": "distributed",
    "kafka": {"bootstrapServers": "kafka:9092"},
    "cassandra": {"contactPoints": "cassandra:9042"},
}


def merged(base: Any, change: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}


def paths(values: Any, *above: str) -> list[tuple[str, ...]]:
    """The path of every block of values."""
    found = [above]
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found += paths(value, *above, key)
    return found


def nested(path: tuple[str, ...], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def test_a_misspelt_key_of_any_block_is_refused_by_name(refuse: Callable[..., str], objects: Any) -> None:
    blocks = paths(yaml.safe_load((objects.chart / "values.yaml").read_text()))

    everything: dict[str, Any] = {}
    for path in blocks:
        everything = merged(everything, nested(path, {"mispelt": 1}))
    message = refuse(everything)

    assert len(blocks) > 60
    missing = [
        path
        for path in blocks
        if f"at '{''.join('/' + key for key in path)}': additional prop" not in message
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"backend": "both"}, "/backend"),
        ({"settings": {"TIDEWIRE_LOG_LEVL": "debug"}}, "TIDEWIRE_LOG_LEVL"),
        ({"kafka": {"bootstrapServers": "kafka"}}, "/kafka/bootstrapServers"),
        ({"kafka": {"partitions": 0}}, "/kafka/partitions"),
        ({"cassandra": {"keyspace": "Mine"}}, "/cassandra/keyspace"),
        ({"embedded": {"persistence": {"size": "much"}}}, "/embedded/persistence/size"),
        (
            {"storage": {"autoscaling": {"behavior": {"scaleDown": {"policies": [{"kind": "Pods"}]}}}}},
            "policies/0",
        ),
        ({"registry": {"resources": {"requests": {"cpus": 1}}}}, "cpus"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    ],
)
def test_a_value_of_the_wrong_form_is_refused(
    refuse: Callable[..., str], values: dict[str, Any], expected: str
) -> None:
    assert expected in refuse(values)


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ({"backend": "distributed"}, "set kafka.bootstrapServers, or kafka.strimzi.enabled=true"),
        ({"backend": "distributed"}, "set cassandra.contactPoints, or cassandra.k8ssandra.enabled=true"),
        ({"kafka": {"strimzi": {"enabled": True}}, "cassandra": {}}, "set backend=distributed"),
        ({"kafka": {"bootstrapServers": "kafka:9092"}}, "set backend=distributed"),
        (
            merged(DISTRIBUTED, {"kafka": {"strimzi": {"enabled": True}}}),
            "kafka.bootstrapServers names a Kafka and kafka.strimzi.enabled asks for another: unset one",
        ),
        (
            merged(DISTRIBUTED, {"cassandra": {"k8ssandra": {"enabled": True}}}),
            "cassandra.contactPoints names a Cassandra and cassandra.k8ssandra.enabled asks for another: unset one",
        ),
        (
            {
                "backend": "distributed",
                "kafka": {"strimzi": {"enabled": True, "replicas": 1}, "existingSecret": "mine"},
                "cassandra": {"contactPoints": "cassandra:9042"},
            },
            "unset kafka.existingSecret",
        ),
        (
            {
                "backend": "distributed",
                "kafka": {"strimzi": {"enabled": True, "replicas": 1}},
                "cassandra": {"k8ssandra": {"enabled": True, "size": 1}, "datacenter": "dc9"},
            },
            "kafka.replicationFactor is 3, but kafka.strimzi.replicas makes 1 brokers",
        ),
        (
            {
                "backend": "distributed",
                "kafka": {"strimzi": {"enabled": True}},
                "cassandra": {"k8ssandra": {"enabled": True, "size": 1}, "datacenter": "dc9"},
            },
            "cassandra.replicationFactor is 3, but cassandra.k8ssandra.size makes 1 nodes",
        ),
        (
            {
                "backend": "distributed",
                "kafka": {"strimzi": {"enabled": True}},
                "cassandra": {"k8ssandra": {"enabled": True}, "datacenter": "dc9"},
            },
            "unset cassandra.existingSecret, cassandra.authentication, cassandra.datacenter",
        ),
        (merged(DISTRIBUTED, {"kafka": {"replicationFactor": 1}}), "kafka.minInsyncReplicas (2) is above"),
        (merged(DISTRIBUTED, {"kafka": {"securityProtocol": "SASL_SSL"}}), "set kafka.existingSecret"),
        (merged(DISTRIBUTED, {"kafka": {"securityProtocol": "SSL"}}), "kafka.caFromSecret=false"),
        (
            merged(DISTRIBUTED, {"kafka": {"existingSecret": "mine"}}),
            "set kafka.securityProtocol to SASL_SSL",
        ),
        (merged(DISTRIBUTED, {"cassandra": {"authentication": "password"}}), "set cassandra.existingSecret"),
        (
            merged(DISTRIBUTED, {"cassandra": {"existingSecret": "mine"}}),
            "set cassandra.authentication=password",
        ),
        (merged(DISTRIBUTED, {"auth": {"bootstrap": {"enabled": False}}}), "auth.existingSecret is empty"),
        (
            merged(DISTRIBUTED, {"storage": {"autoscaling": {"maxReplicas": 13}}}),
            "storage.autoscaling.maxReplicas is 13, but the telemetry topic has 12 partitions",
        ),
        (
            merged(DISTRIBUTED, {"storage": {"autoscaling": {"enabled": False}, "replicas": 20}}),
            "storage.replicas is 20, but the telemetry topic has 12 partitions",
        ),
        (
            merged(
                DISTRIBUTED, {"ingestion": {"autoscaling": {"enabled": False, "keda": {"enabled": True}}}}
            ),
            "ingestion.autoscaling.enabled is false: set it to true for KEDA",
        ),
        (
            merged(DISTRIBUTED, {"registry": {"autoscaling": {"minReplicas": 5}}}),
            "registry.autoscaling.minReplicas (5) is above maxReplicas (4)",
        ),
        (
            merged(DISTRIBUTED, {"ingestion": {"resources": {"requests": {"cpu": None}}}}),
            "ingestion.resources.requests.cpu is not set: set it",
        ),
        ({"tls": {"enabled": True}}, "set tls.existingSecret, or tls.certManager.enabled=true"),
        ({"tls": {"existingSecret": "mine"}}, "tls.enabled is false: set it to true"),
        (
            {"tls": {"enabled": True, "existingSecret": "mine", "certManager": {"enabled": True}}},
            "tls.existingSecret names a certificate and tls.certManager.enabled asks for another: unset one",
        ),
        ({"tls": {"enabled": True, "certManager": {"enabled": True}}}, "set tls.certManager.issuerRef.name"),
        ({"embedded": {"persistence": {"existingClaim": "a", "storageClass": "b"}}}, "unset one of them"),
        ({"gatewayApi": {"grpcRoute": {"enabled": True}}}, "set gatewayApi.grpcRoute.parentRefs"),
        (
            {"settings": {"TIDEWIRE_BACKEND": "distributed"}},
            "settings.TIDEWIRE_BACKEND is decided by backend",
        ),
        (
            {"ingestion": {"settings": {"TIDEWIRE_INGESTION_PORT": 80}}},
            "ingestion.settings.TIDEWIRE_INGESTION_PORT is decided by the chart",
        ),
    ],
)
def test_contradictions_are_refused_with_the_remedy(
    refuse: Callable[..., str], values: dict[str, Any], remedy: str
) -> None:
    message = refuse(values)

    assert "these values contradict one another" in message
    assert remedy in message


def test_all_contradictions_are_told_at_once(refuse: Callable[..., str]) -> None:
    message = refuse({"backend": "distributed", "tls": {"enabled": True}})

    assert [line[:2] for line in message.splitlines()].count("- ") == 3
