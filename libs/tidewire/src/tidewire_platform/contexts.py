"""Writes contexts of the `tidewire` command, so that it reaches the platform that `up` or `demo` has started."""

import os
import tempfile
from pathlib import Path
from typing import Any

import yaml


def config_file() -> Path:
    """`$XDG_CONFIG_HOME/tidewire/config.yaml`."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "tidewire" / "config.yaml"


def write_context(name: str, endpoint: str, token_file: Path, *, tenant: str = "") -> None:
    """Sets a context; makes it the current one when there was none. Other contexts stay as they are."""
    path = config_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    content: dict[str, Any] = (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}
    context = {"endpoint": endpoint, "token_file": str(token_file)}
    if tenant:
        context["tenant"] = tenant
    content.setdefault("contexts", {})[name] = context
    content.setdefault("current-context", name)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".config.")
    with os.fdopen(handle, "w") as file:
        yaml.safe_dump(content, file, sort_keys=False)
    Path(draft).replace(path)
