"""The administrator's token of a release in a cluster, for a context that is made for it."""

import base64

from tidewire_cli.kube.cluster import Cluster, ask
from tidewire_cli.kube.releases import unknown_release
from tidewire_client.errors import InvalidArgument, NotFound, PermissionDenied

CHART = "tidewire"
ENTRY = "admin-token"


def full_name(release: str) -> str:
    """What the chart calls the objects of a release, unless its values say otherwise."""
    return release if CHART in release else f"{release}-{CHART}"


def read_admin_token(cluster: Cluster, release: str, secret: str = "") -> str:
    """The token in the keys' Secret. Blocks.

    Raises NotFound when there is no such release, otherwise InvalidArgument saying how else to come by it.
    """
    name = secret or f"{full_name(release)}-keys"
    try:
        data = ask(cluster, f"/api/v1/namespaces/{cluster.namespace}/secrets/{name}").get("data") or {}
        return base64.b64decode(data[ENTRY]).decode().strip()
    except (NotFound, PermissionDenied, KeyError) as error:
        unknown = unknown_release(cluster, release) if isinstance(error, NotFound) else None
        if unknown is not None:
            raise unknown from None
        why = error.message if isinstance(error, NotFound | PermissionDenied) else f"it has no {ENTRY}"
        raise InvalidArgument(
            f"the token cannot be read from the Secret {cluster.namespace}/{name}: {why}. Name it with --keys-secret, "
            "or give --token-file or --token-stdin; on the embedded backend: kubectl exec --namespace "
            f"{cluster.namespace} {full_name(release)}-0 -- cat /data/keys/admin.token",
            field="token_file",
            reason="NO_TOKEN",
        ) from None
