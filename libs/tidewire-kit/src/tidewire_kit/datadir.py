"""The data directory of the embedded backend: made and checked here, before anything is opened in it.

    VERSION     the format's version, a number
    log/        the message log          registry/  the registry's database      storage/  blocks and catalog
    keys/       signing key and tokens   run/       endpoints, sockets, locks: nothing that outlives the processes

Called by `tidewire_kit.service.run`, by `tidewire up` (which takes a lock in `run/`) and by the registry's bootstrap
(which fills `keys/`).
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidewire_kit.errors import FailedPrecondition

FORMAT_VERSION: Final = 1
ROOMS: Final = ("log", "registry", "storage", "keys", "run")
"""What is in a data directory, beside VERSION."""
RESTORING: Final = "RESTORING"
"""A file that is there while a restore exchanges the rooms: what is there then belongs to two platforms."""


@dataclass(frozen=True, slots=True)
class DataDir:
    """An opened data directory; all paths are absolute and exist, except files that somebody has yet to write."""

    root: Path

    @property
    def log(self) -> Path:
        """The message log's."""
        return self.root / "log"

    @property
    def registry(self) -> Path:
        """The registry's."""
        return self.root / "registry"

    @property
    def storage(self) -> Path:
        """The storage service's."""
        return self.root / "storage"

    @property
    def keys(self) -> Path:
        """Keys and tokens; readable by its owner only."""
        return self.root / "keys"

    @property
    def run(self) -> Path:
        """What lives as long as the processes."""
        return self.root / "run"

    @property
    def signing_key_file(self) -> Path:
        """The platform's ES256 private key, PEM, mode 0600."""
        return self.keys / "signing.pem"

    @property
    def service_token_file(self) -> Path:
        """The token by which services call one another."""
        return self.keys / "service.token"

    @property
    def admin_token_file(self) -> Path:
        """The token of the first platform administrator."""
        return self.keys / "admin.token"

    @property
    def endpoints_file(self) -> Path:
        """Where the services of this platform listen."""
        return self.run / "endpoints.json"


def open_data_dir(path: Path) -> DataDir:
    """Returns the directory, created when missing. Safe to call from many processes at once.

    Raises FailedPrecondition: DATA_DIR_NOT_WRITABLE, FORMAT_NEWER (written by a newer version of this software),
    DATA_DIR_FOREIGN (it holds something else), or RESTORE_UNFINISHED.
    """
    data_dir = DataDir(Path(path).expanduser().absolute())
    try:
        data_dir.root.mkdir(parents=True, exist_ok=True, mode=0o750)
        _check_version(data_dir.root)
        _check_whole(data_dir.root)
        for room in ROOMS:
            (data_dir.root / room).mkdir(exist_ok=True, mode=0o700 if room == "keys" else 0o750)
        with tempfile.TemporaryFile(dir=data_dir.run):
            pass
    except OSError as error:
        why = "it is a file" if data_dir.root.is_file() else error.strerror or error
        raise FailedPrecondition(
            f"the data directory {data_dir.root} cannot be used: {why}; make it a directory that "
            "this user can write, or set TIDEWIRE_DATA_DIR to another",
            reason="DATA_DIR_NOT_WRITABLE",
            subject=str(data_dir.root),
        ) from error
    return data_dir


def write_private(path: Path, data: bytes) -> None:
    """Writes a key or token: mode 0600 from the first byte on, whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _check_version(root: Path) -> None:
    file = root / "VERSION"
    try:
        text = file.read_text().strip()
    except FileNotFoundError:
        if any((root / room).exists() for room in ("log", "registry", "storage")):
            raise _foreign(root, "has no VERSION file beside its data") from None
        # Another process may do the same at the same moment: both write the same.
        descriptor, temporary = tempfile.mkstemp(dir=root, prefix=".VERSION.")
        with os.fdopen(descriptor, "w") as new:
            new.write(f"{FORMAT_VERSION}\n")
            new.flush()
            os.fsync(new.fileno())
        os.replace(temporary, file)
        return
    if not text.isdecimal():
        raise _foreign(root, "has a VERSION file that holds no number")
    if int(text) > FORMAT_VERSION:
        raise FailedPrecondition(
            f"the data directory {root} has format {text}, this software knows formats up to {FORMAT_VERSION}; use the "
            "newer version that wrote it, or set TIDEWIRE_DATA_DIR to another directory",
            reason="FORMAT_NEWER",
            subject=str(root),
        )


def _check_whole(root: Path) -> None:
    if (root / RESTORING).exists():
        raise FailedPrecondition(
            f"a restore into the data directory {root} was interrupted; run `tidewire storage restore` again with "
            "--replace",
            reason="RESTORE_UNFINISHED",
            subject=str(root),
        )


def _foreign(root: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the data directory {root} {why}; restore it, or set TIDEWIRE_DATA_DIR to another directory",
        reason="DATA_DIR_FOREIGN",
        subject=str(root),
    )
