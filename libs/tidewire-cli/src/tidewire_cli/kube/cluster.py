"""A Kubernetes cluster as one caller sees it: the client, its namespace, and its errors as ours.

The client library takes over a second to import, so it is imported when a cluster is first asked for. It blocks:
callers on an event loop use threads.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidewire_client.errors import (
    Conflict,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    TidewireError,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

SECONDS = (5.0, 30.0)
"""Longest times to connect and to be answered; each request names them."""
_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster to ask. `api` is given to the library's own classes, as `CoreV1Api(cluster.api)`."""

    api: "ApiClient"
    context: str
    """The context in the kubeconfig; "" inside a pod."""
    namespace: str
    """As given, else the context's, else the pod's, else `default`."""

    @property
    def address(self) -> str:
        """The API server's."""
        return str(self.api.configuration.host)

    @property
    def place(self) -> str:
        """For people: the context, or the address where there is none."""
        return self.context or self.address

    def close(self) -> None:
        """Closes its connections."""
        self.api.close()


def connect(context: str = "", namespace: str = "", environ: Mapping[str, str] | None = None) -> Cluster:
    """A cluster by a context of the kubeconfig (KUBECONFIG, ~/.kube/config); without one the pod's own, or the current.

    Asks nobody yet. Raises InvalidArgument when there is no such context or no usable kubeconfig, FailedPrecondition
    when the client library is not installed.
    """
    variables = os.environ if environ is None else environ
    try:
        from kubernetes import client, config
        from kubernetes.config.kube_config import KubeConfigLoader  # noqa: F401 - says early what is half installed
    except ImportError:
        raise FailedPrecondition(
            "this command needs the Kubernetes client: install tidewire-cli[k8s]",
            reason="KUBERNETES_CLIENT_MISSING",
        ) from None
    configuration = client.Configuration()
    configuration.retries = 1
    inside = not context and "KUBECONFIG" not in variables and "KUBERNETES_SERVICE_HOST" in variables
    if inside and (_POD / "token").exists():
        config.load_incluster_config(client_configuration=configuration)
        found = (_POD / "namespace").read_text().strip()
        return Cluster(client.ApiClient(configuration), "", namespace or found)
    file = variables.get("KUBECONFIG") or None
    try:
        contexts, active = config.list_kube_config_contexts(config_file=file)
        config.load_kube_config(file, context=context or None, client_configuration=configuration)
    except (config.ConfigException, OSError, ValueError, KeyError, TypeError) as error:
        why = str(error).strip().rstrip(".")
        raise InvalidArgument(
            f"no Kubernetes cluster is known: {why}; set KUBECONFIG, or name a context that `kubectl config "
            "get-contexts` shows",
            field="kubernetes-context",
            reason="KUBERNETES_CONFIG",
        ) from None
    chosen = next((one for one in contexts if one["name"] == context), active)
    told = str(chosen["context"].get("namespace") or "default")
    return Cluster(client.ApiClient(configuration), str(chosen["name"]), namespace or told)


@contextmanager
def asking(cluster: Cluster, what: str) -> Iterator[None]:
    """Turns the library's errors into ours within the block. `what` says what was asked, such as `Secret tw/keys`."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise _translated(error.status, _message(error), what) from None
    except (HTTPError, OSError) as error:
        cause = getattr(error, "reason", None) or error
        raise Unavailable(
            f"cannot reach the Kubernetes API at {cluster.address}: {cause}", reason="KUBERNETES_UNREACHABLE"
        ) from None


def ask(cluster: Cluster, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """The API server's answer to GET, or with a body to POST, as plain values. Raises TidewireError."""
    with asking(cluster, path.partition("?")[0]):
        method, url, headers, sent, _ = cluster.api.param_serialize(
            "GET" if body is None else "POST",
            path,
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = cluster.api.call_api(method, url, headers, sent, _request_timeout=SECONDS)
        answer.read()
        if answer.status >= 300:
            from kubernetes.client.exceptions import ApiException

            raise ApiException(answer.status, answer.reason, body=answer.data.decode(errors="replace"))
        return json.loads(answer.data)


def ask_if_there(cluster: Cluster, path: str) -> Any:
    """As `ask`, of something that may not be there: then None."""
    try:
        return ask(cluster, path)
    except NotFound:
        return None


def _translated(status: Any, message: str, what: str) -> TidewireError:
    made: TidewireError
    match status:
        case 401:
            made = Unauthenticated(
                f"the cluster does not know the caller: {message}; log in again",
                reason="KUBERNETES_UNAUTHENTICATED",
            )
        case 403:
            made = PermissionDenied(f"{what}: {message}", reason="KUBERNETES_FORBIDDEN")
        case 404:
            made = NotFound(f"{what}: {message}")
        case 409:
            made = Conflict(f"{what}: {message}")
        case 429 | 500 | 502 | 503 | 504:
            made = Unavailable(f"{what}: the cluster says {message}", reason="KUBERNETES_UNREACHABLE")
        case 0:  # the upgrade to a stream failed before there was a status
            made = Unavailable(f"{what}: {message}", reason="KUBERNETES_UNREACHABLE")
        case _:
            made = InternalError(f"{what}: the cluster says {message}", reason="KUBERNETES_REFUSED")
    made.from_platform = not isinstance(made, Unavailable)
    return made


def _message(error: Any) -> str:
    """What the API server says, which never quotes a Secret's data."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or error.status)
