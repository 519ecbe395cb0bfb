"""What a cluster must have before Tidewire is installed: version, rights, storage class, metrics, kinds, namespace."""

import re
from collections.abc import Mapping
from typing import Any, Final

from tidewire_cli.kube.cluster import Cluster, ask, ask_if_there
from tidewire_client.errors import TidewireError
from tidewire_platform.doctor.finding import Finding, ok, warning, wrong
from tidewire_platform.kube.needs import Kind, Needs

LEAST_VERSION: Final = (1, 30)
_VERBS: Final = ("create", "get", "patch", "delete")
_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
_LEVEL: Final = "pod-security.kubernetes.io/enforce"


def check_before(cluster: Cluster, needs: Needs) -> list[Finding]:
    """All findings. Blocks. Raises Unavailable when the cluster does not answer at all."""
    version = ask(cluster, "/version")
    groups = [str(group["name"]) for group in ask(cluster, "/apis").get("groups", ())]
    there = [kind for kind in needs.kinds if not kind.provider or kind.group in groups]
    return [
        judged_version(cluster.address, version),
        *(_missing(kind) for kind in needs.kinds if kind not in there),
        *([_metrics(cluster, groups)] if needs.metrics else []),
        _namespace(cluster),
        _rights(cluster, there),
        *([_storage(cluster, needs)] if needs.volume else []),
    ]


def judged_version(address: str, version: Mapping[str, Any]) -> Finding:
    """The finding for an answer of /version."""
    text = str(version.get("gitVersion", "unknown"))
    number = re.match(r"v?(\d+)\.(\d+)", text)
    if number is None:
        return warning(
            "cluster", address, f"says version {text}", "see whether it is Kubernetes 1.30 or newer"
        )
    if (int(number[1]), int(number[2])) < LEAST_VERSION:
        return wrong(
            "cluster",
            address,
            f"runs Kubernetes {text}, in which pods cannot pause before they stop (preStop `sleep`)",
            "upgrade it to 1.30 or newer",
        )
    return ok("cluster", address, f"Kubernetes {text}")


def _missing(kind: Kind) -> Finding:
    return wrong(
        "kinds",
        f"{kind.plural}.{kind.group}",
        f"the cluster does not know it, and {kind.option} asks for it",
        f"install {kind.provider}, or set {kind.option} to false",
    )


def _metrics(cluster: Cluster, groups: list[str]) -> Finding:
    remedy = (
        "install metrics-server, or set autoscaling.enabled of the services to false; until then their number of "
        "pods does not follow the load"
    )
    if "metrics.k8s.io" not in groups:
        return wrong("metrics", "metrics.k8s.io", "the cluster has no metrics of pods", remedy)
    try:
        found = ask(cluster, "/apis/metrics.k8s.io/v1beta1/nodes?limit=1")
    except TidewireError as error:
        if error.reason == "KUBERNETES_FORBIDDEN":
            return ok("metrics", "metrics.k8s.io", "served; this caller may not read them")
        return wrong("metrics", "metrics.k8s.io", f"metrics cannot be read: {error.message}", remedy)
    if not found.get("items"):
        return warning("metrics", "metrics.k8s.io", "no node has metrics yet", "look again in a minute")
    return ok("metrics", "metrics.k8s.io", "nodes and pods have metrics")


def _namespace(cluster: Cluster) -> Finding:
    name = cluster.namespace
    try:
        found = ask_if_there(cluster, f"/api/v1/namespaces/{name}")
    except TidewireError as error:
        return warning("namespace", name, error.message, "ask for the right to get the namespace")
    if found is None:
        return warning(
            "namespace", name, "does not exist", "add --create-namespace to `helm install`, or create it"
        )
    if found.get("status", {}).get("phase") == "Terminating":
        return wrong("namespace", name, "is being deleted", "wait until it is gone, or choose another")
    level = found["metadata"].get("labels", {}).get(_LEVEL, "")
    if level == "restricted":
        return ok("namespace", name, "enforces Pod Security `restricted`, which every pod of the chart meets")
    return ok("namespace", name, f"enforces Pod Security `{level or 'privileged'}`; `restricted` would do")


def _rights(cluster: Cluster, kinds: list[Kind]) -> Finding:
    lacking: dict[str, list[str]] = {}
    for kind in kinds:
        for verb in _VERBS:
            if not _may(cluster, kind, verb):
                name = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
                lacking.setdefault(name, []).append(verb)
    if not lacking:
        return ok("rights", cluster.namespace, f"this caller may install all {len(kinds)} kinds of objects")
    text = "; ".join(f"{name} ({', '.join(verbs)})" for name, verbs in lacking.items())
    return wrong(
        "rights",
        cluster.namespace,
        f"this caller may not work on {text}",
        "ask the cluster's administrator for a Role with these in the namespace, or let somebody else install",
    )


def _may(cluster: Cluster, kind: Kind, verb: str) -> bool:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {
                "namespace": cluster.namespace,
                "verb": verb,
                "group": kind.group,
                "resource": kind.plural,
            }
        },
    }
    answer = ask(cluster, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(answer.get("status", {}).get("allowed"))


def _storage(cluster: Cluster, needs: Needs) -> Finding:
    try:
        classes = ask(cluster, "/apis/storage.k8s.io/v1/storageclasses").get("items", ())
    except TidewireError as error:
        return warning(
            "storage",
            "StorageClasses",
            error.message,
            "see that the class you need exists, or ask for the right",
        )
    names = [str(one["metadata"]["name"]) for one in classes]
    if needs.storage_class:
        if needs.storage_class in names:
            return ok("storage", needs.storage_class, "the StorageClass is there")
        return wrong(
            "storage",
            needs.storage_class,
            "there is no such StorageClass",
            f"set embedded.persistence.storageClass to one of {', '.join(names) or 'those to be made'}",
        )
    default = [
        str(one["metadata"]["name"])
        for one in classes
        if one["metadata"].get("annotations", {}).get(_DEFAULT_CLASS) == "true"
    ]
    if default:
        return ok("storage", default[0], "is the default StorageClass")
    return wrong(
        "storage",
        "StorageClasses",
        "none is the default, so the volume of the embedded backend would wait for ever",
        f"set embedded.persistence.storageClass to one of {', '.join(names)}"
        if names
        else "install a provisioner of volumes, or name an existing claim in embedded.persistence.existingClaim",
    )
