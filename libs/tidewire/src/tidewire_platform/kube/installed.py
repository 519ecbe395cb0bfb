"""What keeps an installed release from working: pods, images, claims, Jobs, each with its remedy."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tidewire_cli.kube.cluster import Cluster, ask
from tidewire_client.errors import PermissionDenied
from tidewire_platform.doctor.finding import Finding, ok, warning, wrong
from tidewire_platform.kube.images import PULL_FAILURES, cannot_pull

_CONFIG: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})

Object = Mapping[str, Any]


def check_installed(cluster: Cluster, release: str) -> list[Finding]:
    """All findings on the release; one that says so when there is none, or when they may not be seen. Blocks."""
    selector = f"?labelSelector=app.kubernetes.io/instance%3D{release}"
    paths = [
        f"{group}/namespaces/{cluster.namespace}/{plural}{selector}"
        for group, plural in (
            ("/api/v1", "pods"),
            ("/api/v1", "persistentvolumeclaims"),
            ("/apis/batch/v1", "jobs"),
            ("/apis/apps/v1", "deployments"),
            ("/apis/apps/v1", "statefulsets"),
        )
    ]
    try:
        pods, claims, jobs, deployments, sets = (ask(cluster, path)["items"] for path in paths)
    except PermissionDenied as error:
        return [
            warning("release", release, error.message, "ask for the right to list these in the namespace")
        ]
    return judged(release, pods, claims, jobs, [*deployments, *sets])


def judged(
    release: str,
    pods: Sequence[Object],
    claims: Sequence[Object],
    jobs: Sequence[Object],
    controllers: Sequence[Object],
) -> list[Finding]:
    """The findings for what the cluster says of a release."""
    if not (pods or claims or jobs or controllers):
        return [ok("release", release, "is not installed; the findings are on what it needs")]
    # A Job's pod that has failed is told with its Job, one that is done is no matter.
    running = [pod for pod in pods if pod["status"].get("phase") not in ("Succeeded", "Failed")]
    findings = [
        *(finding for controller in controllers for finding in _controller(controller)),
        *(_pod(pod) for pod in running),
        *(_claim(claim) for claim in claims if claim["status"].get("phase") != "Bound"),
        *(_job(job) for job in jobs if _condition(job, "Failed")),
    ]
    return findings or [ok("release", release, "nothing of it runs now")]


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])


def _condition(item: Object, kind: str) -> Object | None:
    """The condition, if it holds."""
    for condition in item["status"].get("conditions", ()):
        if condition["type"] == kind and condition["status"] == "True":
            return dict(condition)
    return None


def _controller(item: Object) -> Iterator[Finding]:
    failure = _condition(item, "ReplicaFailure")
    if failure is not None:
        yield wrong(
            "pods",
            _name(item),
            f"no pod can be made: {failure.get('message', failure.get('reason', ''))}",
            "correct what the message names (a quota, Pod Security, an admission rule), then look again",
        )
    wanted = int(item["spec"].get("replicas", 1))
    ready = int(item["status"].get("readyReplicas", 0))
    if ready >= wanted > 0:
        yield ok("pods", _name(item), f"{ready} of {wanted} pods are ready")
    elif wanted == 0:
        yield warning("pods", _name(item), "is scaled to no pods", "set its replicas to 1 or more")
    elif failure is None:
        yield warning(
            "pods", _name(item), f"{ready} of {wanted} pods are ready", "see the findings on its pods"
        )


def _pod(pod: Object) -> Finding:
    name, status = _name(pod), pod["status"]
    if pod["metadata"].get("deletionTimestamp"):
        return ok("pod", name, "is being stopped")
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return wrong(
                "pod",
                name,
                f"no node takes it: {condition.get('message', condition.get('reason', ''))}",
                "add nodes, lower the requests in `resources`, or see what the message names",
            )
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    for container in containers:
        finding = _container(name, container)
        if finding is not None:
            return finding
    if not _condition(pod, "Ready"):
        return warning(
            "pod",
            name,
            "runs and is not ready",
            f"look again in a minute; if it stays so, see `kubectl logs {name}` and its page /readyz",
        )
    restarts = max((int(container.get("restartCount", 0)) for container in containers), default=0)
    ended = [container.get("lastState", {}).get("terminated", {}) for container in containers]
    if any(one.get("reason") == "OOMKilled" for one in ended):
        return warning(
            "pod", name, f"is ready, and was killed for its use of memory ({restarts} restarts)", _MEMORY
        )
    return ok("pod", name, f"is ready ({restarts} restarts)")


_MEMORY: Final = "raise the memory limit in `resources` of its service"


def _container(pod: str, container: Object) -> Finding | None:
    """What is wrong with a container; None: nothing."""
    waiting = container["state"].get("waiting")
    if not waiting:
        return None
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", "")).strip()
    if reason in PULL_FAILURES:
        return cannot_pull(pod, str(container.get("image", "its image")), reason, message)
    if reason in _CONFIG:
        return wrong(
            "pod",
            pod,
            f"cannot be started: {message or reason}",
            "make what the message names, such as a Secret",
        )
    if reason == "CrashLoopBackOff":
        last = container.get("lastState", {}).get("terminated", {})
        if last.get("reason") == "OOMKilled":
            return wrong("pod", pod, "is killed again and again for its use of memory", _MEMORY)
        return wrong(
            "pod",
            pod,
            f"ends again and again, last with status {last.get('exitCode', 'unknown')}",
            f"see why: kubectl logs {pod} --previous --container {container.get('name', '')}",
        )
    return None


def _claim(claim: Object) -> Finding:
    wanted = claim["spec"].get("storageClassName")
    of = f"of the class {wanted}" if wanted else "of the default class"
    return wrong(
        "volume",
        _name(claim),
        f"waits for a volume {of}",
        f"see `kubectl describe persistentvolumeclaim {_name(claim)}`: a class that does not exist, no provisioner, or "
        "no room",
    )


def _job(job: Object) -> Finding:
    failed = _condition(job, "Failed") or {}
    return wrong(
        "job",
        _name(job),
        f"failed: {failed.get('message', failed.get('reason', 'it gave no reason'))}",
        f"see why: kubectl logs job/{_name(job)}; correct it and run `helm upgrade --install` again",
    )
