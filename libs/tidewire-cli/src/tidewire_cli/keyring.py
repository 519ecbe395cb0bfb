"""Private keys of devices that were made here: `device-keys/{tenant}/{device}/{credential}.pem` under XDG data, 0600.

Written by `tidewire credential create --generate`, found again by `tidewire device token`.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from tidewire_cli.contexts import data_home


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A private key on this machine, and the id of the credential it belongs to."""

    credential: str
    path: Path


def key_directory(tenant: str, device: str) -> Path:
    """Where the keys of a device are kept."""
    return data_home() / "device-keys" / tenant / device.replace(":", "%3A")


def keep(draft: Path, tenant: str, device: str, credential: str) -> Path:
    """Moves a key that was written under a draft name to its place. Returns the place."""
    directory = key_directory(tenant, device)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = directory / f"{credential}.pem"
    draft.replace(place)
    with contextlib.suppress(OSError):
        os.chmod(place, 0o600)
    return place


def find_key(device: str, *, tenant: str = "", credential: str = "") -> KeptKey | None:
    """The newest key of a device that is kept here, of any tenant unless one is named; None when there is none."""
    root = data_home() / "device-keys"
    tenants = [tenant] if tenant else [path.name for path in root.iterdir()] if root.is_dir() else []
    found = [
        path for name in tenants for path in key_directory(name, device).glob(f"{credential or '*'}.pem")
    ]
    if not found:
        return None
    newest = max(found, key=lambda path: path.stat().st_mtime)
    return KeptKey(newest.stem, newest)
