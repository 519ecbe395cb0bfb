"""Network policies: nothing is open but what has a name, and every pod is held by them."""

from collections.abc import Callable
from typing import Any

import pytest

Manifest = dict[str, Any]
CALLS = {("ingestion", "registry"), ("registry", "storage")}
"""(who, whom): the calls between services."""
PORTS = {"registry": (7001, 7101), "ingestion": (7002, 7102), "storage": (7003, 7103)}


class Network:
    """Decides as a cluster would, for the parts of the API that the chart uses."""

    def __init__(self, manifests: list[Manifest], objects: Any) -> None:
        self._policies = objects.kinds(manifests, "NetworkPolicy")
        self._selects = objects.selects

    def allows(
        self, direction: str, labels: dict[str, str], port: int, peer: dict[str, str], namespace: str = "demo"
    ) -> bool:
        """Whether a pod with `labels` may be reached by (Ingress), or may reach (Egress), a pod with `peer` labels."""
        mine = [p["spec"] for p in self._policies if self._selects(p["spec"]["podSelector"], labels)]
        held = [spec for spec in mine if direction in spec["policyTypes"]]
        assert held, "no policy holds the pod, so that everything is open"
        key, side = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
        rules = [rule for spec in held for rule in spec.get(key) or []]
        return any(
            any(p["port"] == port and p.get("protocol", "TCP") == "TCP" for p in rule["ports"])
            and (side not in rule or any(self._is(one, peer, namespace) for one in rule[side]))
            for rule in rules
        )

    def _is(self, one: Manifest, labels: dict[str, str], namespace: str) -> bool:
        if "namespaceSelector" in one:
            (term,) = one["namespaceSelector"]["matchExpressions"]
            return namespace in term["values"] and "podSelector" not in one
        return namespace == "demo" and bool(self._selects(one["podSelector"], labels))


def labels_of(component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "tidewire",
        "app.kubernetes.io/instance": "t",
        "app.kubernetes.io/component": component,
    }


@pytest.fixture
def network(render: Callable[..., list[Manifest]], objects: Any) -> Callable[..., Network]:
    return lambda combination, values=None: Network(render(combination, values), objects)


def test_a_policy_denies_everything_to_every_pod(
    manifests: list[Manifest], objects: Any, combination: str
) -> None:
    policies = objects.kinds(manifests, "NetworkPolicy")
    if combination == "one-broker":
        assert policies == []
        return
    denying = [p for p in policies if p["metadata"]["name"] == "t-tidewire-default-deny"]
    assert [p["spec"].keys() for p in denying] == [{"podSelector", "policyTypes"}]
    assert denying[0]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert all(
        objects.selects(denying[0]["spec"]["podSelector"], pod["metadata"]["labels"])
        for pod in objects.pods(manifests).values()
    )
    for pod in objects.pods(manifests).values():
        mine = [p for p in policies if objects.selects(p["spec"]["podSelector"], pod["metadata"]["labels"])]
        assert {name for policy in mine for name in policy["spec"]["policyTypes"]} == {"Ingress", "Egress"}
        assert len(mine) >= 2


def test_hooks_have_policies_before_their_pods(
    manifests: list[Manifest], objects: Any, combination: str
) -> None:
    for name, pod in objects.pods(manifests).items():
        if not name.startswith("Job/") or combination == "one-broker":
            continue
        own = [
            policy
            for policy in objects.kinds(manifests, "NetworkPolicy")
            if policy["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
            == pod["metadata"]["labels"]["app.kubernetes.io/component"]
        ]
        (policy,) = own
        assert policy["spec"]["ingress"] == []
        assert len(policy["spec"]["egress"]) == 2


def test_every_rule_has_ports_and_every_way_in_has_a_source(manifests: list[Manifest], objects: Any) -> None:
    for policy in objects.kinds(manifests, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress") or []:
            assert rule["ports"]
            assert rule["from"]
        for rule in policy["spec"].get("egress") or []:
            assert rule["ports"]


def test_services_reach_one_another_only_where_they_call(network: Callable[..., Network]) -> None:
    made = network("distributed", {"networkPolicy": {"clients": {"sameNamespace": False}}})

    for who in PORTS:
        for whom, (port, metrics) in PORTS.items():
            if who == whom:
                continue
            goes_out = made.allows("Egress", labels_of(who), port, labels_of(whom))
            assert goes_out == ((who, whom) in CALLS)
            assert not goes_out or made.allows("Ingress", labels_of(whom), port, labels_of(who))
            assert not made.allows("Egress", labels_of(who), metrics, labels_of(whom))


def test_clients_come_from_the_own_namespace_unless_others_are_named(network: Callable[..., Network]) -> None:
    stranger = {"app": "stranger"}
    usual = network("distributed")
    for service, (port, metrics) in PORTS.items():
        assert usual.allows("Ingress", labels_of(service), port, stranger)
        assert not usual.allows("Ingress", labels_of(service), port, stranger, "elsewhere")
        assert not usual.allows("Ingress", labels_of(service), metrics, stranger)
        assert not usual.allows("Ingress", labels_of(service), metrics, stranger, "elsewhere")
        assert usual.allows("Ingress", labels_of(service), metrics, stranger, "monitoring")
        assert not usual.allows("Ingress", labels_of(service), port, stranger, "monitoring")
    change = {"networkPolicy": {"clients": {"sameNamespace": False, "namespaces": ["elsewhere"]}}}
    named = network("distributed", change)
    assert named.allows("Ingress", labels_of("ingestion"), 7002, stranger, "elsewhere")
    assert not named.allows("Ingress", labels_of("ingestion"), 7002, stranger)
    assert named.allows("Ingress", labels_of("ingestion"), 7002, labels_of("test"))


def test_the_embedded_pod_reaches_nothing_but_names(network: Callable[..., Network]) -> None:
    made = network("default")

    assert made.allows("Egress", labels_of("platform"), 53, {})
    for port in (80, 443, 7001, 9042, 9092):
        assert not made.allows("Egress", labels_of("platform"), port, {})


def test_each_process_reaches_only_the_servers_that_it_uses(network: Callable[..., Network]) -> None:
    made = network("distributed")
    reached = {
        component: [
            port for port in (443, 6443, 9042, 9092) if made.allows("Egress", labels_of(component), port, {})
        ]
        for component in ("registry", "ingestion", "storage", "bootstrap", "topics", "schema", "test")
    }

    assert reached == {
        "registry": [9042, 9092],
        "ingestion": [9092],
        "storage": [9042, 9092],
        "bootstrap": [443, 6443],
        "topics": [9092],
        "schema": [9042],
        "test": [],
    }


def test_ports_and_peers_of_servers_are_those_of_the_values(
    render: Callable[..., list[Manifest]], objects: Any
) -> None:
    policies = {p["metadata"]["name"]: p for p in objects.kinds(render("distributed-tls"), "NetworkPolicy")}
    rules = policies["t-tidewire-storage"]["spec"]["egress"]

    assert {"ports": ports(9093, 19093), "to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]} in rules
    assert {"ports": ports(9142), "to": [{"ipBlock": {"cidr": "10.2.0.0/16"}}]} in rules


def ports(*numbers: int) -> list[Manifest]:
    return [{"protocol": "TCP", "port": number} for number in numbers]
