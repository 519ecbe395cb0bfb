"""`tidewire k8s check` against a real API server: what is missing before, what is broken after, and the remedies."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from kubernetes.client import AppsV1Api, BatchV1Api, CoreV1Api, RbacAuthorizationV1Api, StorageV1Api
from typer.testing import CliRunner

from tidewire_platform.kube_commands import k8s
from tidewire_testkit.kube import KubeApi

pytestmark = [pytest.mark.kube, pytest.mark.timeout(180)]

APP = typer.Typer()
APP.add_typer(k8s, name="k8s")
LABELS = {"app.kubernetes.io/instance": "tidewire", "app.kubernetes.io/part-of": "tidewire"}
CONTAINER = {"name": "main", "image": "registry.invalid/tidewire/storage:1"}


class Setting:
    def __init__(self, api: KubeApi, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        client = api.client()
        self.core, self.apps, self.batch = CoreV1Api(client), AppsV1Api(client), BatchV1Api(client)
        self.rbac, self.storage = RbacAuthorizationV1Api(client), StorageV1Api(client)

    def run(self, *options: str, user: str = "admin", kubeconfig: Path | None = None) -> Result:
        file = kubeconfig or self.api.kubeconfig(user, self.namespace)
        return CliRunner().invoke(APP, ["k8s", "check", *options], env={"KUBECONFIG": str(file)})

    def findings(self, *options: str, user: str = "admin") -> dict[tuple[str, str], dict[str, str]]:
        """(check, subject) → finding."""
        done = self.run("--output", "json", *options, user=user)
        assert done.stdout, f"{done.stderr} {done.exception!r}"
        answer = json.loads(done.stdout)
        return {(found["check"], found["subject"]): found for found in answer["findings"]}

    def pod(self, name: str, status: dict[str, Any]) -> None:
        body = {"metadata": {"name": name, "labels": LABELS}, "spec": {"containers": [CONTAINER]}}
        # Without controllers nobody makes the account that pods run as.
        self.core.create_namespaced_pod(self.namespace, body)
        self.core.patch_namespaced_pod_status(name, self.namespace, {"status": status})


@pytest.fixture
def setting(api: KubeApi, namespace: str) -> Setting:
    made = Setting(api, namespace)
    made.core.create_namespaced_service_account(namespace, {"metadata": {"name": "default"}})
    return made


@pytest.fixture
def storage_class(setting: Setting) -> str:
    name = f"class-of-{setting.namespace}"
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    setting.storage.create_storage_class(
        {"metadata": {"name": name, "annotations": annotations}, "provisioner": "tests.invalid/none"}
    )
    yield name
    setting.storage.delete_storage_class(name)


def test_a_cluster_that_has_everything_is_well(setting: Setting, storage_class: str) -> None:
    done = setting.run()
    assert done.exit_code == 0, done.output
    found = setting.findings()
    assert {one["state"] for one in found.values()} == {"ok"}
    assert found["storage", storage_class]["text"] == "is the default StorageClass"
    assert "is not installed" in found["release", "tidewire"]["text"]


def test_what_is_missing_before_is_told_with_its_remedy(setting: Setting, tmp_path: Path) -> None:
    assert "waits for ever" in setting.findings()["storage", "StorageClasses"]["text"].replace(
        "would wait", "waits"
    )
    values = tmp_path / "values.yaml"
    values.write_text(
        "backend: distributed\nserviceMonitor: {enabled: true}\nstorage: {autoscaling: {keda: {enabled: true}}}\n"
    )
    found = setting.findings("--values", str(values))
    assert found["kinds", "servicemonitors.monitoring.coreos.com"]["remedy"].startswith(
        "install the Prometheus"
    )
    assert "storage.autoscaling.keda.enabled" in found["kinds", "scaledobjects.keda.sh"]["text"]
    assert "metrics-server" in found["metrics", "metrics.k8s.io"]["remedy"]
    assert ("storage", "StorageClasses") not in found, "the distributed backend claims no volume"
    done = setting.run("--values", str(values))
    assert done.exit_code == 1
    assert "→ install metrics-server" in done.stdout


def test_rights_are_those_of_the_caller(setting: Setting) -> None:
    found = setting.findings(user="nobody")
    text = found["rights", setting.namespace]["text"]
    assert "statefulsets.apps (create, get, patch, delete)" in text
    assert found["rights", setting.namespace]["state"] == "wrong"
    assert found["namespace", setting.namespace]["state"] == "warning"
    assert found["release", "tidewire"]["state"] == "warning"


def test_a_namespace_that_is_not_there_or_restricted_is_named(setting: Setting) -> None:
    assert (
        "--create-namespace" in setting.findings("--namespace", "nowhere")["namespace", "nowhere"]["remedy"]
    )
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    setting.core.patch_namespace(setting.namespace, {"metadata": {"labels": labels}})
    assert "`restricted`" in setting.findings()["namespace", setting.namespace]["text"]


def test_what_is_broken_after_is_told_with_its_remedy(setting: Setting, storage_class: str) -> None:
    waiting = {"name": "main", "image": CONTAINER["image"], "imageID": "", "ready": False, "restartCount": 0}
    pull = {"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}
    crash = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    memory = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    ready = {"type": "Ready", "status": "True"}
    setting.pod("pulling", {"phase": "Pending", "containerStatuses": [{**waiting, "state": pull}]})
    setting.pod(
        "crashing",
        {"phase": "Running", "containerStatuses": [{**waiting, "state": crash, "lastState": memory}]},
    )
    unfit = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes: memory",
    }
    setting.pod("unfit", {"phase": "Pending", "conditions": [unfit]})
    setting.pod("good", {"phase": "Running", "conditions": [ready]})
    claim = {
        "metadata": {"name": "data", "labels": LABELS},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    setting.core.create_namespaced_persistent_volume_claim(setting.namespace, claim)
    template = {"spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}
    job = {"metadata": {"name": "topics", "labels": LABELS}, "spec": {"template": template}}
    setting.batch.create_namespaced_job(setting.namespace, job)
    at = "2026-01-01T00:00:00Z"
    failed = [
        {
            "type": kind,
            "status": "True",
            "reason": "BackoffLimitExceeded",
            "message": "no broker",
            "lastTransitionTime": at,
        }
        for kind in ("FailureTarget", "Failed")
    ]
    setting.batch.patch_namespaced_job_status(
        "topics", setting.namespace, {"status": {"startTime": at, "conditions": failed}}
    )
    found = setting.findings()
    assert "no such host" in found["image", "pulling"]["text"]
    assert "nodes reach this registry" in found["image", "pulling"]["remedy"]
    assert "memory" in found["pod", "crashing"]["remedy"]
    assert "0/3 nodes" in found["pod", "unfit"]["text"]
    assert found["pod", "good"]["state"] == "ok"
    assert storage_class in found["volume", "data"]["text"]
    assert "no broker" in found["job", "topics"]["text"]
    assert "kubectl logs job/topics" in found["job", "topics"]["remedy"]
    assert setting.run().exit_code == 1
    assert setting.run("--release", "another").exit_code == 0, (
        "what belongs to another release is not looked at"
    )


def test_a_cluster_that_is_away_is_status_3(setting: Setting) -> None:
    away = setting.api.kubeconfig("admin", "away", url="https://127.0.0.1:9")
    done = setting.run(kubeconfig=away)
    assert done.exit_code == 3
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.output
