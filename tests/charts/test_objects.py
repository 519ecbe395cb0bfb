"""The objects of a release fit together: names that refer to something, selectors, numbers of pods, hooks."""

import re
from collections.abc import Callable
from typing import Any

import pytest

SERVICES = ("registry", "ingestion", "storage")

Manifest = dict[str, Any]


def named(manifests: list[Manifest], *kinds: str) -> set[str]:
    return {manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] in kinds}


def test_every_object_has_the_recommended_labels_and_the_namespace(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        assert manifest["metadata"]["namespace"] == "demo"
        for name in ("name", "instance", "component", "part-of", "version", "managed-by"):
            assert labels[f"app.kubernetes.io/{name}"]
        assert labels["app.kubernetes.io/instance"] == "t"


def test_names_are_unique_and_stay_within_their_length(render: Callable[..., list[Manifest]]) -> None:
    for combination in ("default", "distributed-keda", "strimzi-k8ssandra"):
        manifests = render(combination, release="r" * 53)
        identities = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]

        assert len(identities) == len(set(identities))
        assert all(len(name) <= 63 for _, name in identities)
        values = [value for manifest in manifests for value in manifest["metadata"]["labels"].values()]
        assert all(len(value) <= 63 for value in values)


def test_what_is_referred_to_exists(manifests: list[Manifest], objects: Any) -> None:
    pods = objects.pods(manifests)
    accounts = named(manifests, "ServiceAccount")
    for name, pod in pods.items():
        if not name.startswith("Pod/"):
            assert pod["spec"]["serviceAccountName"] in accounts
    deployments = named(manifests, "Deployment")
    for scaler in objects.kinds(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        assert scaler["spec"]["scaleTargetRef"]["name"] in deployments
        for trigger in scaler["spec"].get("triggers", []):
            reference = trigger.get("authenticationRef")
            assert reference is None or reference["name"] in named(manifests, "TriggerAuthentication")
    for binding in objects.kinds(manifests, "RoleBinding"):
        assert binding["roleRef"]["name"] in named(manifests, "Role")
        assert all(subject["name"] in accounts for subject in binding["subjects"])
    ports = {m["metadata"]["name"]: m["spec"]["ports"] for m in objects.kinds(manifests, "Service")}
    for route in objects.kinds(manifests, "GRPCRoute"):
        for rule in route["spec"]["rules"]:
            (backend,) = rule["backendRefs"]
            assert backend["port"] in [port["port"] for port in ports[backend["name"]]]


def test_selectors_take_the_pods_that_they_mean(manifests: list[Manifest], objects: Any) -> None:
    pods = objects.pods(manifests)
    for service in objects.kinds(manifests, "Service"):
        owner = f"{'StatefulSet' if service['metadata']['name'] == 't-tidewire' else 'Deployment'}/"
        taken = [
            n
            for n, pod in pods.items()
            if objects.selects(service["spec"]["selector"], pod["metadata"]["labels"])
        ]
        assert taken == [owner + service["metadata"]["name"]]
        (container,) = pods[taken[0]]["spec"]["containers"]
        offered = {port["name"]: port["containerPort"] for port in container["ports"]}
        for port in service["spec"]["ports"]:
            assert offered[port["targetPort"]] == port["port"]
        assert service["spec"]["clusterIP"] == "None"
    for budget in objects.kinds(manifests, "PodDisruptionBudget"):
        taken = [
            n
            for n, pod in pods.items()
            if objects.selects(budget["spec"]["selector"], pod["metadata"]["labels"])
        ]
        assert taken == [f"Deployment/{budget['metadata']['name']}"]
    for monitor in objects.kinds(manifests, "ServiceMonitor"):
        taken = [
            service
            for service in objects.kinds(manifests, "Service")
            if objects.selects(monitor["spec"]["selector"], service["metadata"]["labels"])
        ]
        assert [service["metadata"]["name"] for service in taken] == [monitor["metadata"]["name"]]
        names = {port["name"] for port in taken[0]["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= names


def test_what_cannot_be_changed_holds_no_version(manifests: list[Manifest], objects: Any) -> None:
    for owner in objects.kinds(manifests, "Deployment", "StatefulSet"):
        fixed = [owner["spec"]["selector"]["matchLabels"], owner["spec"]["template"]["metadata"]["labels"]]
        fixed += [claim["metadata"]["labels"] for claim in owner["spec"].get("volumeClaimTemplates", [])]
        for labels in fixed:
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & labels.keys()


def test_replicas_are_set_only_where_nobody_scales(manifests: list[Manifest], objects: Any) -> None:
    scalers = objects.kinds(manifests, "HorizontalPodAutoscaler", "ScaledObject")
    scaled = [scaler["spec"]["scaleTargetRef"]["name"] for scaler in scalers]

    assert len(scaled) == len(set(scaled))
    for deployment in objects.kinds(manifests, "Deployment"):
        assert ("replicas" in deployment["spec"]) == (deployment["metadata"]["name"] not in scaled)


def test_an_upgrade_never_has_fewer_pods(manifests: list[Manifest], objects: Any) -> None:
    for deployment in objects.kinds(manifests, "Deployment"):
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_pods_go_slowly_and_come_fast(manifests: list[Manifest], objects: Any, combination: str) -> None:
    for scaler in objects.kinds(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        spec = scaler["spec"]
        behavior = spec.get("behavior") or spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
        shortened = combination == "one-broker" and scaler["metadata"]["name"] == "t-tidewire-ingestion"
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] == (30 if shortened else 600)
        assert behavior["scaleDown"]["policies"][0]["type"] == "Pods"


def test_keda_looks_at_the_group_and_topic_of_storage(
    render: Callable[..., list[Manifest]], objects: Any
) -> None:
    scalers = {
        s["metadata"]["name"]: s["spec"] for s in objects.kinds(render("distributed-keda"), "ScaledObject")
    }

    kafka = [t for t in scalers["t-tidewire-storage"]["triggers"] if t["type"] == "kafka"]
    assert kafka[0]["metadata"]["consumerGroup"] == "north.tidewire.storage"
    assert kafka[0]["metadata"]["topic"] == "north.tidewire.telemetry.v1"
    assert kafka[0]["metadata"]["sasl"] == "scram_sha512"
    others = [
        t["type"] for name in ("registry", "ingestion") for t in scalers[f"t-tidewire-{name}"]["triggers"]
    ]
    assert others == ["cpu", "cpu"]


def test_hooks_come_in_order_and_leave_nothing(render: Callable[..., list[Manifest]]) -> None:
    hooks = [m for m in render("distributed") if "helm.sh/hook" in m["metadata"].get("annotations", {})]
    weights: dict[str, dict[str, int]] = {}
    for hook in hooks:
        annotations = hook["metadata"]["annotations"]
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        weight = int(annotations.get("helm.sh/hook-weight", "0"))
        weights.setdefault(hook["metadata"]["name"], {})[hook["kind"]] = weight

    jobs = {name: kinds for name, kinds in weights.items() if "Job" in kinds}
    assert sorted(jobs) == ["t-tidewire-bootstrap", "t-tidewire-schema", "t-tidewire-topics"]
    for kinds in jobs.values():
        assert all(weight < kinds["Job"] for kind, weight in kinds.items() if kind != "Job")
        assert kinds.keys() >= {"NetworkPolicy", "ServiceAccount"}
    assert jobs["t-tidewire-bootstrap"]["Job"] < jobs["t-tidewire-topics"]["NetworkPolicy"] + 1


def test_the_keys_are_made_once_and_never_by_templates(
    manifests: list[Manifest], objects: Any, combination: str
) -> None:
    assert named(manifests, "Secret") == set()
    made = any(name.endswith("-bootstrap") for name in named(manifests, "Job"))
    assert made == (combination in {"distributed", "distributed-keda", "one-broker", "strimzi-k8ssandra"})


def test_routes_name_the_services_of_the_protos(render: Callable[..., list[Manifest]], objects: Any) -> None:
    declared = set()
    for path in objects.root.glob("protos/tidewire/*/v1/*.proto"):
        text = path.read_text()
        package = re.search(r"^package (.+);", text, re.MULTILINE)
        declared |= (
            {f"{package[1]}.{name}" for name in re.findall(r"^service (\w+)", text, re.MULTILINE)}
            if package
            else set()
        )

    for combination in ("embedded-full", "distributed-tls"):
        routes = objects.kinds(render(combination), "GRPCRoute")
        matched = {
            m["method"]["service"] for r in routes for rule in r["spec"]["rules"] for m in rule["matches"]
        }
        assert matched == declared


def test_a_certificate_covers_every_name_that_is_told_to_clients(
    render: Callable[..., list[Manifest]], objects: Any
) -> None:
    manifests = render("distributed-tls")
    (certificate,) = objects.kinds(manifests, "Certificate")

    for pod in objects.pods(manifests).values():
        for variable in pod["spec"]["containers"][0]["env"]:
            if variable["name"] == "TIDEWIRE_ADVERTISE_HOST":
                assert variable["value"] in certificate["spec"]["dnsNames"]
    assert "telemetry.example" in certificate["spec"]["dnsNames"]
    assert certificate["spec"]["secretName"] == "t-tidewire-tls"
    # Where `tidewire` forwards ports to.
    assert certificate["spec"]["ipAddresses"] == ["127.0.0.1"]
    none = {"tls": {"certManager": {"ipAddresses": []}}}
    (without,) = objects.kinds(render("distributed-tls", none), "Certificate")
    assert "ipAddresses" not in without["spec"]


@pytest.mark.parametrize("combination_", ["default", "embedded-full", "distributed", "distributed-tls"])
def test_a_pod_that_calls_itself_is_known_before_it_is_ready_and_no_other(
    render: Callable[..., list[Manifest]], objects: Any, combination_: str
) -> None:
    """On the embedded backend services call one another by the pod's name; elsewhere callers see what is ready."""
    services = objects.kinds(render(combination_), "Service")
    embedded = combination_ in ("default", "embedded-full")

    assert [service["spec"]["clusterIP"] for service in services] == ["None"] * (1 if embedded else 3)
    assert {service["spec"].get("publishNotReadyAddresses", False) for service in services} == {embedded}


def test_the_volume_outlives_the_release(render: Callable[..., list[Manifest]], objects: Any) -> None:
    (stateful,) = objects.kinds(render("default"), "StatefulSet")
    kept = objects.kinds(
        render("strimzi-k8ssandra"), "Kafka", "KafkaNodePool", "KafkaUser", "K8ssandraCluster"
    )

    assert stateful["spec"]["replicas"] == 1
    assert stateful["spec"]["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }
    assert len(kept) == 4
    assert all(m["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for m in kept)


def test_an_existing_claim_is_used(render: Callable[..., list[Manifest]], objects: Any) -> None:
    (stateful,) = objects.kinds(
        render("default", {"embedded": {"persistence": {"existingClaim": "mine"}}}), "StatefulSet"
    )
    volumes = {volume["name"]: volume for volume in stateful["spec"]["template"]["spec"]["volumes"]}

    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "mine"}
    assert "volumeClaimTemplates" not in stateful["spec"]


def test_services_look_alike(render: Callable[..., list[Manifest]], objects: Any) -> None:
    manifests = render("distributed")
    shapes = []
    for service in SERVICES:
        own = [m for m in manifests if m["metadata"]["labels"]["app.kubernetes.io/component"] == service]
        shapes.append(sorted(manifest["kind"] for manifest in own))

    assert shapes[0] == shapes[1] == shapes[2]
    assert len(shapes[0]) == 6
