"""Whether a node gets the images, found out by a pod that does nothing but have them; `tidewire k8s check --pull` asks.

Nobody else can tell: which registries a node reaches, which credentials and mirrors it has and which images it holds
are its own affair. The pod has a container for each image, meets Pod Security `restricted`, and is deleted at the end.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tidewire_cli.kube.cluster import SECONDS, Cluster, ask, asking
from tidewire_client.errors import NotFound, TidewireError
from tidewire_platform.doctor.finding import Finding, ok, warning, wrong
from tidewire_platform.kube.images import PULL_FAILURES, Images, cannot_pull

PULL_SECONDS: Final = 300.0
"""For how long images may be pulled; the largest is some 200 MB, compressed."""
_LOOK_SECONDS: Final = 0.5
_LABELS: Final = {"app.kubernetes.io/part-of": "tidewire", "app.kubernetes.io/component": "image-check"}
_COMMAND: Final = ["/app/bin/python", "-c", ""]
"""Ends at once with 0, in an image of ours on a processor that it was built for."""
_NOT_STARTED: Final = ("StartError", "ContainerCannotRun", "RunContainerError", "CreateContainerError")

Object = Mapping[str, Any]


def check_pulls(
    cluster: Cluster, images: Images, stop: threading.Event, seconds: float = PULL_SECONDS
) -> list[Finding]:
    """A finding for each image; one for all of them when there can be no such pod. Blocks until all is known.

    Ends early when `stop` is set. The pod is deleted in any case.
    """
    path = f"/api/v1/namespaces/{cluster.namespace}/pods"
    try:
        made = ask(cluster, path, _pod(images))
    except NotFound as error:
        remedy = f"make it first: kubectl create namespace {cluster.namespace}"
        return [warning("image", "a pod to try them with", error.message, remedy)]
    except TidewireError as error:
        remedy = (
            "correct what the message names, or ask for the right to create and delete pods in the namespace"
        )
        return [wrong("image", "a pod to try them with", error.message, remedy)]
    name = str(made["metadata"]["name"])
    with _deleted(cluster, name):
        deadline = time.monotonic() + seconds
        while True:
            found = judged_pod(ask(cluster, f"{path}/{name}"), images.references)
            if found is not None:
                return found
            if time.monotonic() > deadline or stop.wait(_LOOK_SECONDS):
                return judged_late(ask(cluster, f"{path}/{name}"), images.references, seconds)


def _pod(images: Images) -> dict[str, Any]:
    containers = [
        {
            "name": f"image-{number}",
            "image": reference,
            "imagePullPolicy": images.pull_policy,
            "command": _COMMAND,
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        for number, reference in enumerate(images.references)
    ]
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
        "imagePullSecrets": [{"name": name} for name in images.pull_secrets],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
    }
    metadata = {"generateName": "tidewire-image-check-", "labels": _LABELS}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@contextlib.contextmanager
def _deleted(cluster: Cluster, name: str) -> Iterator[None]:
    """Deletes the pod at the end of the block."""
    from kubernetes.client import CoreV1Api

    try:
        yield
    finally:
        with contextlib.suppress(NotFound), asking(cluster, f"pod {cluster.namespace}/{name}"):
            CoreV1Api(cluster.api).delete_namespaced_pod(
                name, cluster.namespace, grace_period_seconds=0, _request_timeout=SECONDS
            )


def judged_pod(pod: Object, references: Sequence[str]) -> list[Finding] | None:
    """The findings once every image's is known; None: not yet."""
    found = [_container(status, reference) for status, reference in _statuses(pod, references)]
    known = [finding for finding in found if finding is not None]
    return known if len(known) == len(references) else None


def judged_late(pod: Object, references: Sequence[str], seconds: float) -> list[Finding]:
    """The findings when time is over: what is known, and that the others are not there yet."""
    unscheduled = next(
        (
            condition
            for condition in pod.get("status", {}).get("conditions", ())
            if condition["type"] == "PodScheduled" and condition["status"] == "False"
        ),
        None,
    )
    if unscheduled is not None:
        why = f"no node takes it: {unscheduled.get('message', unscheduled.get('reason', ''))}"
        return [wrong("image", "a pod to try them with", why, "see what the message names, or add nodes")]
    return [
        _container(status, reference)
        or warning(
            "image",
            reference,
            f"does not run after {seconds:.0f} s; the node may still be pulling it",
            "look again, which finds what was pulled by then, or see the events of the namespace",
        )
        for status, reference in _statuses(pod, references)
    ]


def _statuses(pod: Object, references: Sequence[str]) -> list[tuple[Object, str]]:
    by_name = {one["name"]: one for one in pod.get("status", {}).get("containerStatuses", ())}
    return [(by_name.get(f"image-{number}", {}), reference) for number, reference in enumerate(references)]


def _container(status: Object, reference: str) -> Finding | None:
    """What is known of an image by its container's status; None: nothing yet."""
    state = status.get("state", {})
    waiting, ended = state.get("waiting") or {}, state.get("terminated")
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", "")).strip()
    if reason in PULL_FAILURES:
        return cannot_pull(reference, reference, reason, message)
    if reason in _NOT_STARTED:
        return _unfit(reference, message or reason)
    if ended is None:
        return None
    if int(ended.get("exitCode", 0)) == 0:
        return ok("image", reference, "the node has it, and it starts")
    return _unfit(reference, str(ended.get("message") or f"it ends with status {ended['exitCode']}").strip())


def _unfit(reference: str, why: str) -> Finding:
    return wrong(
        "image",
        reference,
        f"the node has it, but cannot run it: {why}",
        "see that it is an image of Tidewire, built for the nodes' kind of processor",
    )
