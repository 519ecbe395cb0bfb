"""Says what is wrong when a release that somebody named is not there: the namespace, or the name, and which there are.

Asked only after something of the release was not found, so that a right to list Services is not needed otherwise.
"""

from tidewire_cli.kube.cluster import Cluster, ask, ask_if_there
from tidewire_client.errors import NotFound, PermissionDenied, TidewireError

_PART = "app.kubernetes.io%2Fpart-of%3Dtidewire"
_INSTANCE = "app.kubernetes.io/instance"
REASON = "RELEASE_UNKNOWN"


def releases(cluster: Cluster) -> list[str]:
    """Names of the chart's releases in the cluster's namespace, sorted, by their Services. Raises TidewireError."""
    path = f"/api/v1/namespaces/{cluster.namespace}/services?labelSelector={_PART}"
    labels = [service["metadata"].get("labels", {}) for service in ask(cluster, path)["items"]]
    return sorted({str(one[_INSTANCE]) for one in labels if _INSTANCE in one})


def unknown_release(cluster: Cluster, release: str) -> TidewireError | None:
    """The error that names what is not there; None when the release is, or this caller may not see that. Blocks."""
    try:
        known = releases(cluster)
        if release in known:
            return None
        if not known and ask_if_there(cluster, f"/api/v1/namespaces/{cluster.namespace}") is None:
            return NotFound(
                f"there is no namespace {cluster.namespace} in the cluster {cluster.place}; choose one with "
                "`tidewire context create --namespace`",
                reason=REASON,
            )
    except PermissionDenied:
        return None
    there = f"there is {', '.join(known)}; choose" if known else "there is none; choose"
    return NotFound(
        f"there is no release {release} of Tidewire in the namespace {cluster.namespace} of the cluster "
        f"{cluster.place}; {there} with `tidewire context create --release` and --namespace "
        "(`helm list --all-namespaces` shows all)",
        reason=REASON,
    )
