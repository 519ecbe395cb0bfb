"""What the commands do that work on a cluster, apart from their options: `admin bootstrap` in a Secret, `k8s check`."""

import asyncio
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tidewire_cli.kube.cluster import Cluster, connect
from tidewire_cli.output import Output
from tidewire_kit.clock import SystemClock
from tidewire_kit.errors import InvalidArgument
from tidewire_platform.doctor.finding import Finding
from tidewire_platform.doctor.run import show
from tidewire_platform.kube.before import check_before
from tidewire_platform.kube.images import Images, images_of
from tidewire_platform.kube.installed import check_installed
from tidewire_platform.kube.keys import bootstrap_secret
from tidewire_platform.kube.needs import needs_of
from tidewire_platform.kube.pulling import check_pulls


async def bootstrap_in_secret(name: str, namespace: str, context: str) -> int:
    """Makes the keys' Secret whole and says what was done; returns the exit status. Raises TidewireError."""
    cluster = await asyncio.to_thread(connect, context, namespace)
    try:
        done = await asyncio.to_thread(bootstrap_secret, cluster, name, SystemClock())
    finally:
        cluster.close()
    place = f"Secret {done.namespace}/{done.name}"
    if done.made:
        print(f"{'Created' if done.created else 'Completed'} {place}: made {', '.join(done.made)}")
    else:
        print(f"{place} has everything; nothing to do")
    for token, days in done.ending.items():
        when = f"ends in {days:.0f} days" if days > 0 else "has ended"
        print(
            f"Warning: its {token} {when}; remove that entry from the Secret and run this again to renew it",
            file=sys.stderr,
        )
    return 0


async def check_cluster(
    namespace: str,
    release: str,
    values: Sequence[Path],
    context: str,
    out: Output,
    pull: Sequence[str] | None = None,
) -> int:
    """Looks at a cluster and shows what it found; returns the exit status 0 or 1. Raises TidewireError.

    pull: images that a node is to get for it, none: those that the values name; None: nothing is pulled.
    """
    merged = _merged(values)
    cluster = await asyncio.to_thread(connect, context, namespace)
    try:
        before = await asyncio.to_thread(check_before, cluster, needs_of(merged))
        pulled = [] if pull is None else await _pulled(cluster, images_of(merged, version("tidewire"), pull))
        installed = await asyncio.to_thread(check_installed, cluster, release)
    finally:
        cluster.close()
    return show([*before, *pulled, *installed], out)


async def _pulled(cluster: Cluster, images: Images) -> list[Finding]:
    """As `check_pulls`; a user who does not want to wait does not leave the pod behind."""
    stop = threading.Event()
    checking = asyncio.ensure_future(asyncio.to_thread(check_pulls, cluster, images, stop))
    try:
        return await asyncio.shield(checking)
    except asyncio.CancelledError:
        stop.set()
        await checking
        raise


def _merged(files: Sequence[Path]) -> Mapping[str, Any]:
    values: dict[str, Any] = {}
    for file in files:
        try:
            found = yaml.safe_load(file.read_text()) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InvalidArgument("--values", f"{file} is not readable YAML: {error}") from None
        if not isinstance(found, dict):
            raise InvalidArgument("--values", f"{file} holds no mapping; write `key: value` lines")
        values = _over(values, found)
    return values


def _over(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """As Helm does: mappings are merged, all else is replaced."""
    result = dict(values)
    for key, value in others.items():
        known = result.get(key)
        both = isinstance(value, dict) and isinstance(known, dict)
        result[key] = _over(known, value) if both else value  # type: ignore[arg-type]
    return result
