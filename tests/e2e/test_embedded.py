"""The chart as it is, one pod with one volume: what was published in the cluster is there when the pod has died."""

import json

import pytest

from tidewire_testkit.pods import Namespace, until
from tidewire_testkit.workstation import Workstation

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400, func_only=True)]
POD = "one-tidewire-0"


def test_what_was_published_outlives_the_pod_and_the_release(
    namespace: Namespace, chart: str, images: list[str], workstation: Workstation
) -> None:
    _check_before(namespace, images, workstation)
    namespace.helm("install", "one", chart, *images, "--wait", "--timeout", "120s")
    token = namespace.kubectl("exec", POD, "--", "cat", "/data/keys/admin.token").strip()
    client = namespace.client("one-tidewire:7001", token)
    client.tidewire("tenant", "create", "acme")
    client.publish("pump", 21.5)
    until(lambda: client.temperatures("pump") == [21.5], "the reading is visible", 30)
    place = ("--kubernetes-context", namespace.cluster.context, "--namespace", namespace.name)
    workstation.tidewire("context", "create", "one", *place, "--release", "one", "--token-stdin", stdin=token)
    until(lambda: workstation.temperatures("pump") == [21.5], "the reading is seen from outside", 120)
    before = namespace.get("pod", POD)["metadata"]["uid"]

    namespace.kubectl("delete", "pod", POD, "--wait")
    until(lambda: _renewed(namespace, before), "another pod is ready", 60)

    assert client.temperatures("pump") == [21.5]
    client.publish("pump", 22.5)
    until(lambda: client.temperatures("pump") == [21.5, 22.5], "the second reading is visible", 30)

    namespace.helm("uninstall", "one", "--wait", "--timeout", "120s")
    until(
        lambda: not namespace.get("pods", "--selector", "app.kubernetes.io/instance=one")["items"],
        "no pod",
        60,
    )
    assert namespace.left_of("one") == ["persistentvolumeclaim/data-one-tidewire-0"]

    namespace.helm("install", "one", chart, *images, "--wait", "--timeout", "120s")
    assert client.temperatures("pump") == [21.5, 22.5]


def _check_before(namespace: Namespace, images: list[str], workstation: Workstation) -> None:
    """The node says before the installation whether it gets the images, and the pod that asks it is gone afterwards."""
    registry = images[-1].partition("=")[2]
    values = workstation.home / "values.yaml"
    values.write_text(f"image: {{registry: {registry}}}\n")
    words = ("k8s", "check", "--namespace", namespace.name, "--values", str(values), "--output", "json")
    good = json.loads(workstation.tidewire(*words, "--pull"))["findings"]
    wrong = workstation.run(*words, "--image", "localhost/tidewire/nothing:1")
    assert [one["state"] for one in good if one["check"] == "image"] == ["ok"]
    assert wrong.returncode == 1, wrong.stderr
    (told,) = [one for one in json.loads(wrong.stdout)["findings"] if one["check"] == "image"]
    assert told["subject"] == "localhost/tidewire/nothing:1"
    assert "the node cannot get" in told["text"]
    assert "image.registry" in told["remedy"]
    until(lambda: not namespace.get("pods")["items"], "no pod is left", 60)


def _renewed(namespace: Namespace, before: str) -> bool:
    pods = namespace.ready_pods("platform")
    return len(pods) == 1 and pods[0]["metadata"]["uid"] != before
