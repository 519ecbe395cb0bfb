"""`tidewire k8s check --pull` against a real API server, where a thread of the test says what a node would say."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from kubernetes.client import CoreV1Api
from typer.testing import CliRunner

from tidewire_cli.kube.cluster import connect
from tidewire_platform.kube.images import Images
from tidewire_platform.kube.pulling import check_pulls
from tidewire_platform.kube_commands import k8s
from tidewire_testkit.kube import KubeApi
from tidewire_testkit.polling import until_sync

pytestmark = [pytest.mark.kube, pytest.mark.timeout(180)]

APP = typer.Typer()
APP.add_typer(k8s, name="k8s")
ENDED = {"terminated": {"exitCode": 0, "reason": "Completed"}}


class Setting:
    """A namespace in which pods must be restricted, and the command run in it as somebody."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self.core = CoreV1Api(api.client())
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.core.patch_namespace(namespace, {"metadata": {"labels": labels}})
        self.core.create_namespaced_service_account(namespace, {"metadata": {"name": "default"}})
        self.seen: list[Any] = []

    def run(self, *options: str, user: str = "admin", namespace: str = "") -> Result:
        file = self.api.kubeconfig(user, namespace or self.namespace)
        return CliRunner().invoke(
            APP, ["k8s", "check", "--output", "json", *options], env={"KUBECONFIG": str(file)}
        )

    def findings(self, *options: str, user: str = "admin", namespace: str = "") -> dict[str, dict[str, str]]:
        """Subject → finding, of those on images."""
        done = self.run(*options, user=user, namespace=namespace)
        assert done.stdout, f"{done.stderr} {done.exception!r}"
        found = json.loads(done.stdout)["findings"]
        return {one["subject"]: one for one in found if one["check"] == "image"}

    def pods(self) -> list[Any]:
        return list(self.core.list_namespaced_pod(self.namespace).items)

    @contextlib.contextmanager
    def node(self, states: dict[str, dict[str, Any]]) -> Iterator[None]:
        """Within the block containers of every pod that comes are as their images say: image → state."""
        core = CoreV1Api(self.api.client())
        end = threading.Event()

        def run() -> None:
            known: set[str] = set()
            while not end.wait(0.1):
                for pod in core.list_namespaced_pod(self.namespace).items:
                    if pod.metadata.name in known:
                        continue
                    known.add(pod.metadata.name)
                    self.seen.append(pod)
                    statuses = [
                        {
                            "name": one.name,
                            "image": one.image,
                            "imageID": "",
                            "ready": False,
                            "restartCount": 0,
                            "state": states[one.image],
                        }
                        for one in pod.spec.containers
                    ]
                    status = {"status": {"containerStatuses": statuses}}
                    core.patch_namespaced_pod_status(pod.metadata.name, self.namespace, status)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()


@pytest.fixture
def setting(api: KubeApi, namespace: str) -> Setting:
    return Setting(api, namespace)


def test_the_images_of_the_values_are_tried_and_the_pod_is_gone(setting: Setting, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        "backend: distributed\nimage: {registry: r.example, tag: x, pullSecrets: [mine], pullPolicy: Always}\n"
    )
    names = {
        name: f"r.example/tidewire/{name}:x" for name in ("registry", "ingestion", "storage", "tidewire")
    }
    failed = {"waiting": {"reason": "ErrImagePull", "message": "401 Unauthorized"}}
    with setting.node({**dict.fromkeys(names.values(), ENDED), names["storage"]: failed}):
        found = setting.findings("--pull", "--values", str(values))

    assert {name: found[reference]["state"] for name, reference in names.items()} == {
        "registry": "ok",
        "ingestion": "ok",
        "storage": "wrong",
        "tidewire": "ok",
    }
    assert "image.pullSecrets" in found[names["storage"]]["remedy"]
    (pod,) = setting.seen
    assert [secret.name for secret in pod.spec.image_pull_secrets] == ["mine"]
    assert {one.image_pull_policy for one in pod.spec.containers} == {"Always"}
    assert setting.pods() == []


def test_an_image_may_be_named(setting: Setting) -> None:
    with setting.node({"mine:1": ENDED}):
        found = setting.findings("--image", "mine:1")
    assert found["mine:1"]["state"] == "ok"
    assert setting.pods() == []


def test_without_being_asked_it_starts_nothing(setting: Setting) -> None:
    with setting.node({}):
        assert setting.findings() == {}
    assert setting.seen == []


def test_who_may_make_no_pod_is_told_so(setting: Setting) -> None:
    refused = setting.findings("--image", "mine:1", user="nobody")["a pod to try them with"]
    assert 'cannot create resource "pods"' in refused["text"]
    assert "right" in refused["remedy"]
    nowhere = setting.findings("--image", "mine:1", namespace="nowhere")["a pod to try them with"]
    assert nowhere["state"] == "warning"
    assert nowhere["remedy"].endswith("kubectl create namespace nowhere")


def test_time_may_be_over_and_the_pod_is_gone_too(setting: Setting) -> None:
    cluster = connect(environ={"KUBECONFIG": str(setting.api.kubeconfig("admin", setting.namespace))})
    images = Images(["mine:1"], "IfNotPresent", [])
    (found,) = check_pulls(cluster, images, threading.Event(), seconds=0)
    assert "may still be pulling" in found.text
    assert setting.pods() == []


def test_who_does_not_want_to_wait_leaves_no_pod_behind(setting: Setting) -> None:
    cluster = connect(environ={"KUBECONFIG": str(setting.api.kubeconfig("admin", setting.namespace))})
    stop = threading.Event()
    images = Images(["mine:1"], "IfNotPresent", [])
    checking = threading.Thread(target=check_pulls, args=(cluster, images, stop))
    checking.start()
    until_sync(lambda: len(setting.pods()) == 1, seconds=60, message="the pod is made")
    stop.set()
    checking.join(60)
    assert not checking.is_alive()
    assert setting.pods() == []
