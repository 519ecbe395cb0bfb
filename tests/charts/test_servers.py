"""Kafka and Cassandra made by their operators, for which no package registry has a schema: field by field, and that the
platform's pods use what the operators make."""

from collections.abc import Callable
from typing import Any

import pytest

Manifest = dict[str, Any]

# What the kinds know, of what the chart uses: from the operators' references (Strimzi 0.49, K8ssandra operator 1.20).
KNOWN: dict[str, Any] = {
    "Kafka": {
        "kafka": {"version": str, "listeners": list, "authorization": {"type": str}, "config": dict},
        "entityOperator": {"userOperator": dict},
    },
    "KafkaNodePool": {
        "replicas": int,
        "roles": list,
        "storage": {"type": str, "volumes": list},
        "resources": {"requests": dict, "limits": dict},
    },
    "KafkaUser": {"authentication": {"type": str}, "authorization": {"type": str, "acls": list}},
    "K8ssandraCluster": {
        "auth": bool,
        "cassandra": {
            "serverType": str,
            "serverVersion": str,
            "resources": {"requests": dict, "limits": dict},
            "storageConfig": {"cassandraDataVolumeClaimSpec": dict},
            "config": {"jvmOptions": {"heap_initial_size": str, "heap_max_size": str}, "cassandraYaml": dict},
            "datacenters": list,
        },
    },
}


@pytest.fixture
def made(render: Callable[..., list[Manifest]]) -> dict[str, Manifest]:
    return {m["kind"]: m for m in render("strimzi-k8ssandra") if m["kind"] in KNOWN}


def fits(value: Any, known: Any, path: str) -> None:
    if isinstance(known, type):
        assert isinstance(value, known), path
        return
    assert isinstance(value, dict), path
    assert value.keys() <= known.keys(), path
    for key, below in value.items():
        fits(below, known[key], f"{path}.{key}")


def test_the_kinds_have_the_fields_that_they_know(made: dict[str, Manifest], objects: Any) -> None:
    assert made.keys() == KNOWN.keys() == objects.tools.WITHOUT_SCHEMA.keys()
    for kind, manifest in made.items():
        fits(manifest["spec"], KNOWN[kind], kind)
    assert [made[kind]["apiVersion"] for kind in ("Kafka", "KafkaNodePool", "KafkaUser")] == [
        "kafka.strimzi.io/v1"
    ] * 3


def test_the_pods_use_what_strimzi_makes(
    made: dict[str, Manifest], render: Callable[..., Any], objects: Any
) -> None:
    cluster, user = made["Kafka"]["metadata"]["name"], made["KafkaUser"]["metadata"]["name"]
    for kind in ("KafkaNodePool", "KafkaUser"):
        assert made[kind]["metadata"]["labels"]["strimzi.io/cluster"] == cluster
    (listener,) = made["Kafka"]["spec"]["kafka"]["listeners"]
    assert (listener["tls"], listener["authentication"]) == (True, {"type": "scram-sha-512"})

    pods = objects.pods(render("strimzi-k8ssandra"))
    for name in (
        "Deployment/t-tidewire-registry",
        "Deployment/t-tidewire-ingestion",
        "Deployment/t-tidewire-storage",
    ):
        spec = pods[name]["spec"]
        env = {v["name"]: v.get("value") for v in spec["containers"][0]["env"]}
        assert (
            env["TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS"]
            == f"{cluster}-kafka-bootstrap.demo.svc:{listener['port']}"
        )
        assert env["TIDEWIRE_KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL"
        assert env["TIDEWIRE_KAFKA_SASL_USERNAME"] == user
        (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "kafka"]
        secrets = [source["secret"]["name"] for source in volume["projected"]["sources"]]
        assert secrets == [user, f"{cluster}-cluster-ca-cert"]


def test_the_user_has_the_rights_of_the_reference(made: dict[str, Manifest], objects: Any) -> None:
    page = objects.root.joinpath("docs/reference/topics.md").read_text().partition("### Rights")[2]
    acls = {rule["resource"]["type"]: rule for rule in made["KafkaUser"]["spec"]["authorization"]["acls"]}

    for resource in ("topic", "group"):
        rows = [line.split("|")[2] for line in page.splitlines() if line.startswith(f"| {resource} ")]
        wanted = {operation.strip() for row in rows for operation in row.split(",")}
        assert set(acls[resource]["operations"]) == wanted
        assert acls[resource]["resource"]["patternType"] == "prefix"
    assert acls["cluster"]["operations"] == ["Describe"]


def test_the_pods_use_what_k8ssandra_makes(
    made: dict[str, Manifest], render: Callable[..., Any], objects: Any
) -> None:
    cluster = made["K8ssandraCluster"]["metadata"]["name"]
    (datacenter,) = made["K8ssandraCluster"]["spec"]["cassandra"]["datacenters"]

    pods = objects.pods(render("strimzi-k8ssandra"))
    for name in ("Deployment/t-tidewire-registry", "Deployment/t-tidewire-storage"):
        env = {v["name"]: v for v in pods[name]["spec"]["containers"][0]["env"]}
        expected = f"{cluster}-{datacenter['metadata']['name']}-service.demo.svc:9042"
        assert env["TIDEWIRE_CASSANDRA_CONTACT_POINTS"]["value"] == expected
        assert env["TIDEWIRE_CASSANDRA_DATACENTER"]["value"] == datacenter["metadata"]["name"]
        reference = env["TIDEWIRE_CASSANDRA_USERNAME"]["valueFrom"]["secretKeyRef"]
        assert reference == {"name": f"{cluster}-superuser", "key": "username"}


def test_jobs_for_servers_of_this_release_are_no_hooks(
    render: Callable[..., list[Manifest]], objects: Any
) -> None:
    """A hook before the install would wait for servers that come with it."""
    jobs = {m["metadata"]["name"]: m for m in objects.kinds(render("strimzi-k8ssandra"), "Job")}
    plain = {
        name for name, job in jobs.items() if "helm.sh/hook" not in job["metadata"].get("annotations", {})
    }

    assert {name.rpartition("-")[0] for name in plain} == {"t-tidewire-topics", "t-tidewire-schema"}
    changed = objects.kinds(render("strimzi-k8ssandra", {"image": {"tag": "0.2.0"}}), "Job")
    assert plain.isdisjoint(job["metadata"]["name"] for job in changed)
    again = objects.kinds(render("strimzi-k8ssandra"), "Job")
    assert plain < {job["metadata"]["name"] for job in again}
