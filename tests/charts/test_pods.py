"""What is promised of every pod that the chart makes, of services and of Jobs, for all combinations of values."""

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidewire_platform.kube.images import images_of
from tidewire_storage.settings import Settings

CHART = Path(__file__).parents[2] / "charts" / "tidewire"
STATEMENT_BYTES = 320 << 20
"""What the process of a statement takes beside the memory that it may use: libraries, and buffers."""

ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
}
ALLOWED_VOLUMES |= {"secret"}
"""Kinds of volumes of the Pod Security Standard "restricted"."""

Manifest = dict[str, Any]


def services(manifests: list[Manifest], objects: Any) -> list[Manifest]:
    return [
        pod
        for name, pod in objects.pods(manifests).items()
        if name.startswith(("Deployment/", "StatefulSet/"))
    ]


def test_every_pod_is_restricted(manifests: list[Manifest], objects: Any) -> None:
    for pod in objects.pods(manifests).values():
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys()
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (10001, 10001, 10001)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(volume.keys() - {"name"} <= ALLOWED_VOLUMES for volume in spec["volumes"])
        assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume)
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert all("hostPort" not in port for port in container.get("ports", []))


def test_no_pod_has_a_token_but_the_one_that_makes_the_keys(manifests: list[Manifest], objects: Any) -> None:
    accounts = objects.kinds(manifests, "ServiceAccount")

    with_token = [
        name for name, pod in objects.pods(manifests).items() if pod["spec"]["automountServiceAccountToken"]
    ]

    assert all(account["automountServiceAccountToken"] is False for account in accounts)
    assert all(re.fullmatch(r"Job/.*-bootstrap", name) for name in with_token)
    bound = [s["name"] for binding in objects.kinds(manifests, "RoleBinding") for s in binding["subjects"]]
    assert len(bound) == len(with_token)
    for role in objects.kinds(manifests, "Role"):
        assert [(sorted(rule["verbs"]), rule["resources"]) for rule in role["rules"]] == [
            (["get", "patch"], ["secrets"]),
            (["create"], ["secrets"]),
        ]
        assert role["rules"][0]["resourceNames"] == ["t-tidewire-keys"]


def test_every_container_has_requests_and_a_limit_of_memory(manifests: list[Manifest], objects: Any) -> None:
    for pod in objects.pods(manifests).values():
        for container in pod["spec"]["containers"]:
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_links_to_services_are_off(manifests: list[Manifest], objects: Any) -> None:
    """Kubernetes would set TIDEWIRE_REGISTRY_PORT=tcp://… for a Service of that name."""
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in objects.pods(manifests).values())


def test_services_have_three_probes_with_different_meanings(manifests: list[Manifest], objects: Any) -> None:
    for pod in services(manifests, objects):
        (container,) = pod["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        asked = []
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = container[name]
            if "grpc" in probe:
                assert probe["grpc"]["port"] == ports["grpc"]
                asked.append(probe["grpc"].get("service", ""))
            else:
                assert probe["httpGet"]["port"] in ports
                asked.append(probe["httpGet"]["path"])
        assert asked in (["startup", "liveness", ""], ["/startupz", "/livez", "/readyz"])
        patience = (
            container["livenessProbe"]["periodSeconds"] * container["livenessProbe"]["failureThreshold"]
        )
        assert patience >= 30


def test_with_tls_nothing_asks_a_grpc_port_in_the_clear(
    render: Callable[..., list[Manifest]], objects: Any
) -> None:
    for combination in ("distributed-tls", "embedded-full"):
        for pod in services(render(combination), objects):
            (container,) = pod["spec"]["containers"]
            names = {variable["name"] for variable in container["env"]}
            assert "grpc" not in container["readinessProbe"]
            assert names >= {"TIDEWIRE_TLS_CERT_FILE", "TIDEWIRE_TLS_KEY_FILE", "TIDEWIRE_TLS_CA_FILE"}
            assert "TIDEWIRE_INSECURE" not in names


@pytest.mark.parametrize(
    ("combination_", "change", "scheme", "trusts"),
    [
        ("distributed", {}, "grpc://", False),
        ("distributed-tls", {}, "grpcs://", True),
        ("distributed-tls", {"tls": {"caFromSecret": False}}, "grpcs://", False),
        ("embedded-full", {}, "grpcs://", True),
    ],
)
def test_helm_test_asks_for_the_status_as_clients_do(
    render: Callable[..., list[Manifest]],
    objects: Any,
    combination_: str,
    change: dict[str, Any],
    scheme: str,
    trusts: bool,
) -> None:
    pod = objects.pods(render(combination_, change))["Pod/t-tidewire-test"]
    health, status = pod["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in status["env"]}
    endpoint = status["args"][status["args"].index("--endpoint") + 1]

    assert endpoint.startswith(scheme)
    assert endpoint.removeprefix(scheme) in health["args"]
    assert ("TIDEWIRE_CA_FILE" in variables) is trusts
    assert any(variable["name"] == "TIDEWIRE_TLS_CA_FILE" for variable in health["env"]) is trusts
    assert any(variable["name"] == "TIDEWIRE_INSECURE" for variable in health["env"]) is (scheme == "grpc://")


def test_helm_test_does_without_a_token_where_it_lies_on_the_volume(
    render: Callable[..., list[Manifest]], objects: Any
) -> None:
    pod = objects.pods(render("default"))["Pod/t-tidewire-test"]

    assert [container["name"] for container in pod["spec"]["containers"]] == ["health"]


def test_a_pod_has_time_to_drain(manifests: list[Manifest], objects: Any) -> None:
    for pod in services(manifests, objects):
        (container,) = pod["spec"]["containers"]
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = next(int(v["value"]) for v in container["env"] if v["name"] == "TIDEWIRE_DRAIN_SECONDS")
        tiers = (
            3 if container["name"] == "platform" else 1
        )  # `tidewire up` stops its services one after another
        assert pod["spec"]["terminationGracePeriodSeconds"] >= pause + tiers * drain + 10


def test_every_setting_is_one_that_processes_read(manifests: list[Manifest], objects: Any) -> None:
    known = set(
        re.findall(
            r"^\| `(TIDEWIRE_[A-Z0-9_]+)`",
            objects.root.joinpath("docs/reference/settings.md").read_text(),
            re.MULTILINE,
        )
    )
    client = objects.root.joinpath("libs/tidewire-client/src/tidewire_client/connect.py").read_text()
    known |= set(re.findall(r'"(TIDEWIRE_[A-Z_]+)"', client))

    set_by_chart = set()
    for pod in objects.pods(manifests).values():
        for container in pod["spec"]["containers"]:
            names = [variable["name"] for variable in container.get("env", [])]
            assert len(names) == len(set(names))
            set_by_chart |= {name for name in names if name.startswith("TIDEWIRE_")}

    assert len(known) > 60
    assert set_by_chart <= known


def test_files_that_settings_name_are_mounted(manifests: list[Manifest], objects: Any) -> None:
    for pod in objects.pods(manifests).values():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        claims = {"data"}
        for container in pod["spec"]["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert set(mounts.values()) <= volumes.keys() | claims
            for variable in container.get("env", []):
                if not variable["name"].endswith("_FILE"):
                    continue
                directory, _, name = variable["value"].rpartition("/")
                volume = volumes[mounts[directory]]
                keys = [item["path"] for item in items_of(volume)]
                assert not keys or name in keys, f"{variable['name']} names {name}, mounted are {keys}"


def items_of(volume: Manifest) -> list[Manifest]:
    """The files that a volume of Secrets has; none: all that the Secret has."""
    if "projected" in volume:
        return [item for source in volume["projected"]["sources"] for item in source["secret"]["items"]]
    items: list[Manifest] = volume["secret"].get("items", [])
    return items


def test_secrets_are_never_variables(manifests: list[Manifest], objects: Any) -> None:
    for pod in objects.pods(manifests).values():
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                assert reference is None or reference["key"] == "username"
            assert not re.search(r"password|token|secret", " ".join(container.get("args", [])[:1]))


def test_only_the_registry_gets_the_signing_key(render: Callable[..., list[Manifest]], objects: Any) -> None:
    with_key = []
    for name, pod in objects.pods(render("distributed")).items():
        for volume in pod["spec"]["volumes"]:
            keys = [item["key"] for item in items_of(volume)] if volume["name"] == "keys" else []
            with_key += [name] if "signing-key.pem" in keys else []

    assert with_key == ["Deployment/t-tidewire-registry"]


def test_numbers_stay_as_they_were_written(render: Callable[..., list[Manifest]], objects: Any) -> None:
    (pod,) = services(render("embedded-full"), objects)
    values = {variable["name"]: variable.get("value") for variable in pod["spec"]["containers"][0]["env"]}

    assert values["TIDEWIRE_LOG_CAP_BYTES"] == "4000000000"
    assert values["TIDEWIRE_STORAGE_FLUSH_SECONDS"] == "1.5"
    assert values["TIDEWIRE_LOG_LEVEL"] == "debug"


def test_images_are_named_as_the_values_say(render: Callable[..., list[Manifest]], objects: Any) -> None:
    version = re.search(
        r'^version = "(.+)"', objects.root.joinpath("pyproject.toml").read_text(), re.MULTILINE
    )
    assert version is not None

    def images(manifests: list[Manifest]) -> set[str]:
        return {c["image"] for pod in objects.pods(manifests).values() for c in pod["spec"]["containers"]}

    packages = ("registry", "ingestion", "storage", "tidewire")
    assert images(render("default")) == {f"tidewire/tidewire:{version[1]}"}
    assert images(render("distributed")) == {f"tidewire/{name}:{version[1]}" for name in packages}
    change = {"image": {"registry": "localhost:5000", "repository": "a/b", "tag": "x"}}
    assert images(render("distributed", change)) == {f"localhost:5000/a/b/{name}:x" for name in packages}
    change = {"image": {"references": {name: f"elsewhere/{name}@sha256:{'0' * 64}" for name in packages}}}
    assert images(render("distributed", change)) == set(change["image"]["references"].values())


def test_the_check_of_a_cluster_tries_the_images_that_pods_run(
    manifests: list[Manifest], combination: str, objects: Any
) -> None:
    values = yaml.safe_load((objects.chart / "ci" / f"{combination}-values.yaml").read_text()) or {}
    chart = yaml.safe_load((objects.chart / "Chart.yaml").read_text())
    tried = images_of(values, chart["appVersion"])
    pods = objects.pods(manifests).values()

    assert chart["appVersion"] == version("tidewire")
    assert set(tried.references) == {one["image"] for pod in pods for one in pod["spec"]["containers"]}
    for pod in pods:
        assert [one["name"] for one in pod["spec"].get("imagePullSecrets", ())] == list(tried.pull_secrets)
        assert {one["imagePullPolicy"] for one in pod["spec"]["containers"]} == {tried.pull_policy}


def test_commands_of_pods_exist(manifests: list[Manifest], objects: Any) -> None:
    page = objects.root.joinpath("docs/reference/command.md").read_text()

    for pod in objects.pods(manifests).values():
        for container in pod["spec"]["containers"]:
            arguments = container.get("args", [])
            if not arguments or "command" in container:
                continue
            words = " ".join(arguments).partition(" -")[0]
            assert re.search(rf"^#+ tidewire {words}$", page, re.MULTILINE), (
                f"there is no command `tidewire {words}`"
            )
            for option in arguments:
                assert not option.startswith("--") or f"`{option}`" in page, (
                    f"tidewire {words} has no {option}"
                )


def test_memory_limits_hold_the_statements_of_sql_that_may_run_at_once() -> None:
    """A pod that is short of memory may die as a whole, so the default limits have room for all of them."""
    limits = Settings()
    statements = limits.sql_statements * (limits.sql_memory_bytes + STATEMENT_BYTES)
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def limit(*path: str) -> int:
        block = values
        for name in path:
            block = block[name]
        text = block["resources"]["limits"]["memory"]
        return int(text.removesuffix("Gi")) << 30

    assert limit("storage") >= (768 << 20) + statements
    ingestion = limit("ingestion")
    assert limit("embedded") >= (768 << 20) + ingestion + statements
