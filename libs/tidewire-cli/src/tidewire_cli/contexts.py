"""Named platforms: where they are and as whom one talks to them, in `$XDG_CONFIG_HOME/tidewire/config.yaml`.

Written by `tidewire up` and by `tidewire context create`, read by every command. The file may hold tokens, so only its
owner may read it; it is replaced as a whole, under a lock, so two commands do not undo one another.

    current-context: local
    contexts:
      local: {endpoint: 127.0.0.1:7001, token_file: /home/me/.local/share/tidewire/keys/admin.token, tenant: demo}
      plant: {kubernetes: {context: prod, namespace: tidewire, release: tidewire}, token: ...}
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tidewire_client.errors import InvalidArgument, NotFound


def config_home(environ: Mapping[str, str] | None = None) -> Path:
    """`$XDG_CONFIG_HOME/tidewire`."""
    return _home(environ, "XDG_CONFIG_HOME", ".config")


def state_home(environ: Mapping[str, str] | None = None) -> Path:
    """`$XDG_STATE_HOME/tidewire`: progress of imports."""
    return _home(environ, "XDG_STATE_HOME", ".local/state")


def data_home(environ: Mapping[str, str] | None = None) -> Path:
    """`$XDG_DATA_HOME/tidewire`: keys of devices."""
    return _home(environ, "XDG_DATA_HOME", ".local/share")


def _home(environ: Mapping[str, str] | None, variable: str, default: str) -> Path:
    env = os.environ if environ is None else environ
    base = env.get(variable)
    return (Path(base) if base else Path(env.get("HOME") or Path.home()) / default) / "tidewire"


def config_file(environ: Mapping[str, str] | None = None) -> Path:
    """The file of contexts."""
    return config_home(environ) / "config.yaml"


@dataclass(frozen=True, slots=True)
class KubernetesRelease:
    """A release of the chart, to whose pods ports are forwarded; `context` is the kubeconfig's, "" inside a pod."""

    context: str
    namespace: str
    release: str


@dataclass(frozen=True, slots=True)
class Context:
    """A platform and a caller.

    Attributes:
        endpoint: the registry's address, `host:port`, `grpc://...` or `grpcs://...`; "" for one in a cluster.
        tenant: tenant id, or "".
        token_file: file that holds the token, or "".
        token: the token itself, or ""; `token_file` goes before it.
        ca_file: PEM file of the certificate authorities to trust, or "".
        kubernetes: the release in a cluster, instead of an endpoint; None: there is none.
    """

    endpoint: str = ""
    tenant: str = ""
    token_file: str = ""
    token: str = field(default="", repr=False)
    ca_file: str = ""
    kubernetes: KubernetesRelease | None = None

    @property
    def place(self) -> str:
        """Where the platform is, for people."""
        found = self.kubernetes
        return f"{found.context}/{found.namespace}/{found.release}" if found is not None else self.endpoint


@dataclass(frozen=True, slots=True)
class Contexts:
    """What the file holds: the contexts by name, and the name of the one in use ("" for none)."""

    current: str
    contexts: Mapping[str, Context]

    def get(self, name: str = "") -> Context | None:
        """A context by name, or the one in use; None when none is. Raises NotFound for a name that is not there."""
        name = name or self.current
        if not name:
            return None
        if name not in self.contexts:
            known = ", ".join(self.contexts) or "none"
            raise NotFound(f"there is no context '{name}'; there is {known}", reason="CONTEXT_UNKNOWN")
        return self.contexts[name]


def load_contexts(path: Path | None = None) -> Contexts:
    """Reads the file; no file is no contexts. Raises InvalidArgument when it is not what it should be."""
    import yaml

    path = path or config_file()
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return Contexts("", {})
    except (OSError, yaml.YAMLError) as error:
        brief = str(error).splitlines()[0]
        raise InvalidArgument(f"{path} cannot be read: {brief}", field="config") from error
    try:
        contexts = {str(name): _context(one) for name, one in (said.get("contexts") or {}).items()}
        return Contexts(str(said.get("current-context") or ""), contexts)
    except (AttributeError, TypeError) as error:
        raise InvalidArgument(
            f"{path} is not a file of contexts; correct it, or move it away and create them again",
            field="config",
        ) from error


def _context(said: Mapping[str, Any]) -> Context:
    values: dict[str, Any] = {key: str(value) for key, value in said.items() if value is not None}
    if "kubernetes" in values:
        inside = {key: str(value) for key, value in said["kubernetes"].items()}
        values["kubernetes"] = KubernetesRelease(**inside)
    return Context(**values)


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (path.parent / ".config.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _store(path: Path, contexts: Contexts) -> None:
    import yaml

    said = {
        "current-context": contexts.current,
        "contexts": {
            name: {key: value for key, value in asdict(one).items() if value}
            for name, one in contexts.contexts.items()
        },
    }
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        yaml.safe_dump(said, file, sort_keys=False)
    temporary.replace(path)


def write_context(name: str, context: Context, *, use: bool = True, path: Path | None = None) -> Path:
    """Adds or replaces a context, and makes it the one in use unless told not to. Returns the file."""
    from tidewire_client.connect import split_endpoint

    if context.kubernetes is None:
        split_endpoint(context.endpoint)
    path = path or config_file()
    with _changing(path):
        now = load_contexts(path)
        current = name if use or not now.current else now.current
        _store(path, Contexts(current, {**now.contexts, name: context}))
    return path


def use_context(name: str, path: Path | None = None) -> None:
    """Makes a context the one in use. Raises NotFound."""
    path = path or config_file()
    with _changing(path):
        now = load_contexts(path)
        now.get(name)
        _store(path, Contexts(name, now.contexts))


def delete_context(name: str, path: Path | None = None) -> None:
    """Removes a context. Raises NotFound."""
    path = path or config_file()
    with _changing(path):
        now = load_contexts(path)
        now.get(name)
        rest = {other: one for other, one in now.contexts.items() if other != name}
        _store(path, Contexts("" if now.current == name else now.current, rest))
