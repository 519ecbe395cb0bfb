"""Talks to a Kubernetes cluster by kubectl and helm, as a user would; the tests of tests/e2e use it.

Every namespace enforces the Pod Security Standard `restricted`. A *client* is a pod that stands by for commands of
`tidewire`, so that all that tests do to the platform goes through its Services and past its NetworkPolicies.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_PAUSE = "import signal; signal.pause()"


class KubernetesError(Exception):
    """A command of kubectl or helm has failed; the text has what it said."""


def until[T](check: Callable[[], T | None], what: str, seconds: float) -> T:
    """Polls until `check` returns something true, and returns that; a failed command counts as not yet."""
    deadline, last = time.monotonic() + seconds, ""
    while True:
        try:
            if found := check():
                return found
        except KubernetesError as error:
            last = f"; last: {error}"
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}{last}")
        time.sleep(0.5)


def ended(
    command: Sequence[str],
    environ: Mapping[str, str],
    stdin: str | None,
    seconds: float,
    directory: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, however that is. KubernetesError when it takes longer."""
    try:
        return subprocess.run(
            command,
            env=environ,
            cwd=directory,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise KubernetesError(f"{' '.join(command)}: over {seconds:.0f} s: {error.output!r}") from error


class Cluster:
    """A cluster reached by one context of one kubeconfig. `tools`: a directory whose kubectl and helm are preferred."""

    def __init__(self, kubeconfig: Path, context: str, tools: Path | None = None) -> None:
        self.context = context
        self.environ = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        """Of every command that is run on it."""
        if tools is not None:
            self.environ["PATH"] = f"{tools}:{os.environ['PATH']}"

    def kubectl(self, *words: str, stdin: str | None = None, seconds: float = 120) -> str:
        """Runs kubectl and returns what it prints."""
        return self.run("kubectl", "--context", self.context, *words, stdin=stdin, seconds=seconds)

    def helm(self, *words: str, seconds: float = 300) -> str:
        """Runs helm and returns what it prints."""
        return self.run("helm", "--kube-context", self.context, *words, seconds=seconds)

    def run(self, *command: str, stdin: str | None = None, seconds: float = 120) -> str:
        """Runs a command with this cluster's kubeconfig. KubernetesError when it fails or takes longer."""
        done = ended(command, self.environ, stdin, seconds)
        if done.returncode != 0:
            raise KubernetesError(f"{' '.join(command)}: {done.stderr[-2000:]}{done.stdout[-1000:]}")
        return done.stdout


class Namespace:
    """A namespace of a test's own, and what the test does in it."""

    def __init__(self, cluster: Cluster, name: str, registry: str, tag: str) -> None:
        self.cluster = cluster
        self.name = name
        self._image = f"{registry}/tidewire/{{}}:{tag}"

    def create(self) -> None:
        """Makes it, empty: what an earlier run has left in it is removed."""
        self.delete()
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": self.name,
                    "labels": {"pod-security.kubernetes.io/enforce": "restricted", "tidewire-e2e": "true"},
                },
            }
        )

    def delete(self) -> None:
        """Removes it with all that is in it; pods at once, since Kubernetes looks again only after half their grace."""
        makers = "deployments,replicasets,statefulsets,jobs"
        self.kubectl("delete", makers, "--all", "--wait=false", "--cascade=orphan")
        self.kubectl("delete", "pods", "--all", "--grace-period=1", "--wait", seconds=180)
        self.cluster.kubectl("delete", "namespace", self.name, "--ignore-not-found", "--wait", seconds=180)

    def kubectl(self, *words: str, stdin: str | None = None, seconds: float = 120) -> str:
        """Runs kubectl in this namespace."""
        return self.cluster.kubectl("--namespace", self.name, *words, stdin=stdin, seconds=seconds)

    def helm(self, *words: str, seconds: float = 300) -> str:
        """Runs helm in this namespace."""
        return self.cluster.helm("--namespace", self.name, *words, seconds=seconds)

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Applies manifests."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        self.cluster.kubectl("--namespace", self.name, "apply", "-f", "-", stdin=text)

    def get(self, *words: str) -> dict[str, Any]:
        """`kubectl get WORDS`, parsed."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *words, "--output", "json"))
        return found

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Pods of a service of the release that are not about to go, by age."""
        label = f"app.kubernetes.io/component={component}"
        items = self.get("pods", "--selector", label)["items"]
        there = [item for item in items if "deletionTimestamp" not in item["metadata"]]
        return sorted(there, key=lambda item: str(item["metadata"]["creationTimestamp"]))

    def ready_pods(self, component: str) -> list[dict[str, Any]]:
        """Those that are ready."""
        return [pod for pod in self.pods(component) if is_ready(pod)]

    def pod(
        self,
        name: str,
        image: str,
        command: Sequence[str] = (),
        args: Sequence[str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        secrets: Mapping[str, tuple[str, str]] | None = None,
        files: str = "",
    ) -> None:
        """Starts a pod that is not started again when it ends.

        `secrets`: variable → (Secret, key). `files`: a Secret whose keys are files below /files.
        """
        variables: list[dict[str, Any]] = [
            {"name": key, "value": value} for key, value in (environ or {}).items()
        ]
        for variable, (secret, key) in (secrets or {}).items():
            reference = {"secretKeyRef": {"name": secret, "key": key}}
            variables.append({"name": variable, "valueFrom": reference})
        container: dict[str, Any] = {
            "name": "main",
            "image": self._image.format(image),
            "imagePullPolicy": "IfNotPresent",
            "env": variables,
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
        container |= {"command": list(command)} if command else {}
        container |= {"args": list(args)} if args else {}
        volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}]
        if files:
            container["volumeMounts"].append({"name": "files", "mountPath": "/files", "readOnly": True})
            volumes.append({"name": "files", "secret": {"secretName": files}})
        spec = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": volumes,
        }
        metadata = {"name": name, "labels": {"app": name, **(labels or {})}}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def client(self, registry: str, token: str, authorities: Mapping[str, Path] | None = None) -> "Client":
        """Starts the pod `client`, which talks to the registry at this address with this token.

        With `authorities` (name → PEM file) by TLS: they are files below /files, and it trusts the one named `ca`.
        """
        pems = authorities or {}
        words = [f"--from-file={name}={path}" for name, path in pems.items()]
        self.kubectl("create", "secret", "generic", "client", f"--from-literal=token={token}", *words)
        trust = {"TIDEWIRE_CA_FILE": "/files/ca"} if pems else {}
        self.pod(
            "client",
            "tidewire",
            ["/app/bin/python", "-c", _PAUSE],
            environ={"TIDEWIRE_ENDPOINT": f"{'grpcs' if pems else 'grpc'}://{registry}", **trust},
            secrets={"TIDEWIRE_TOKEN": ("client", "token")},
            files="client" if pems else "",
        )
        self.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
        return Client(self)

    def left_of(self, release: str) -> list[str]:
        """`kind/name` of what is there of a release or was made for it: all whose names have the release's in them."""
        kinds = (
            "all,networkpolicies,persistentvolumeclaims,secrets,configmaps,serviceaccounts,roles,rolebindings,"
            "poddisruptionbudgets,horizontalpodautoscalers"
        )
        names = self.kubectl("get", kinds, "--output", "name").split()
        return sorted(name for name in names if f"{release}-" in name)

    def collect(self, target: Path) -> None:
        """Writes what may explain a failure: descriptions, events, logs of all containers, also of earlier ones."""
        target.mkdir(parents=True, exist_ok=True)
        looks = {
            "all": ("get", "all,networkpolicy,pvc,events", "--output", "wide"),
            "describe": ("describe", "pods,jobs,hpa"),
        }
        for pod in self.get("pods")["items"]:
            name = pod["metadata"]["name"]
            looks[f"{name}.log"] = ("logs", name, "--all-containers", "--tail=2000")
            looks[f"{name}.previous.log"] = ("logs", name, "--all-containers", "--tail=500", "--previous")
        for name, words in looks.items():
            try:
                text = self.kubectl(*words)
            except KubernetesError as error:
                text = str(error)
            (target / name).write_text(text)


class Client:
    """The pod `client` of a namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def tidewire(self, *words: str, environ: Mapping[str, str] | None = None, seconds: float = 60) -> str:
        """Runs `tidewire WORDS` in the pod, with more variables, and returns what it prints."""
        variables = [f"{key}={value}" for key, value in (environ or {}).items()]
        command = ("env", *variables, "tidewire", *words) if variables else ("tidewire", *words)
        return self._namespace.kubectl("exec", "client", "--", *command, seconds=seconds)

    def python(self, code: str, *words: str, seconds: float = 60) -> str:
        """Runs a few lines of Python in the pod and returns what they print."""
        command = ("exec", "client", "--", "/app/bin/python", "-c", code, *words)
        return self._namespace.kubectl(*command, seconds=seconds)

    def publish(self, device: str, value: float, tenant: str = "acme") -> None:
        """Publishes a temperature and waits until it is durable; makes the device."""
        self.tidewire("publish", device, f"temperature={value}", "--create", "--tenant", tenant)

    def temperatures(self, device: str, tenant: str = "acme") -> list[float]:
        """A device's temperatures of the last hour, oldest first."""
        words = ("query", device, "temperature", "--rows", "--last", "1h", "--tenant", tenant, "-o", "json")
        return [float(row["temperature"]) for row in json.loads(self.tidewire(*words))["rows"]]


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready."""
    conditions = pod["status"].get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
