"""Keys and tokens in a Secret: what `tidewire admin bootstrap --kubernetes-secret` does, by hand or as a Job.

Adds what is missing and changes nothing that is there. Two that run at once end with one set: the Secret is created by
one of them, or changed on condition that nobody has changed it since, and the other looks again.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tidewire_cli.kube.cluster import SECONDS, Cluster, asking
from tidewire_client.errors import Conflict, NotFound
from tidewire_kit.clock import Clock
from tidewire_registry.key_set import ends_of_tokens, missing_keys

_TRIES: Final = 5
_SOON_SECONDS: Final = 30 * 86_400
_LABELS: Final = {"app.kubernetes.io/part-of": "tidewire", "app.kubernetes.io/managed-by": "tidewire"}
_ANNOTATIONS: Final = {"helm.sh/resource-policy": "keep"}
"""What made the Secret does not own it: without the key every token of every device's platform is worth nothing."""


@dataclass(frozen=True, slots=True)
class KeysSecret:
    """What was done to a Secret; never what is in it."""

    namespace: str
    name: str
    made: tuple[str, ...]
    """Names of the entries added by this call."""
    created: bool
    ending: Mapping[str, float]
    """Name of a token → days until it ends, of those that end within 30 days; negative: it has ended."""


def bootstrap_secret(cluster: Cluster, name: str, clock: Clock) -> KeysSecret:
    """Makes the Secret whole. Blocks.

    Raises FailedPrecondition (KEYS_MISMATCH, SIGNING_KEY_UNUSABLE) for what is there, PermissionDenied, Unavailable and
    the like for the cluster, Conflict when others change the Secret all the time.
    """
    tries = 0
    while True:
        tries += 1
        held, version = _read(cluster, name)
        made = missing_keys(held, clock)
        try:
            if version is None:
                _create(cluster, name, made)
            elif made:
                _add(cluster, name, made, version)
        except Conflict:
            if tries == _TRIES:
                raise
            continue
        now = clock.now_us() / 1e6
        left = {key: (end - now) / 86_400 for key, end in ends_of_tokens(held, clock).items()}
        ending = {key: days for key, days in left.items() if days * 86_400 < _SOON_SECONDS}
        return KeysSecret(cluster.namespace, name, tuple(made), version is None, ending)


def _read(cluster: Cluster, name: str) -> tuple[dict[str, bytes], str | None]:
    """What the Secret holds, and its version; None: there is none."""
    from kubernetes.client import CoreV1Api

    try:
        with asking(cluster, f"Secret {cluster.namespace}/{name}"):
            found = CoreV1Api(cluster.api).read_namespaced_secret(
                name, cluster.namespace, _request_timeout=SECONDS
            )
    except NotFound:
        return {}, None
    held = {key: base64.b64decode(value) for key, value in (found.data or {}).items()}
    return held, str(found.metadata.resource_version)


def _create(cluster: Cluster, name: str, made: Mapping[str, bytes]) -> None:
    from kubernetes.client import CoreV1Api

    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": name, "labels": _LABELS, "annotations": _ANNOTATIONS},
        "data": _data(made),
    }
    with asking(cluster, f"Secret {cluster.namespace}/{name}"):
        CoreV1Api(cluster.api).create_namespaced_secret(cluster.namespace, body, _request_timeout=SECONDS)


def _add(cluster: Cluster, name: str, made: Mapping[str, bytes], version: str) -> None:
    from kubernetes.client import CoreV1Api

    body: dict[str, Any] = {"metadata": {"resourceVersion": version}, "data": _data(made)}
    with asking(cluster, f"Secret {cluster.namespace}/{name}"):
        CoreV1Api(cluster.api).patch_namespaced_secret(
            name, cluster.namespace, body, _request_timeout=SECONDS
        )


def _data(made: Mapping[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in made.items()}
