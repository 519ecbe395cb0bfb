"""Where backups are kept: a directory, or a bucket of an object store. Both are keys and bytes to `saving` and
`restoring`, which call them from several threads at once.

`put` is whole or not at all in both: by a rename after a sync, or by the object store itself. Credentials come from
the environment alone, by the names that all S3 tools know.
"""

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from tidewire_kit.buckets import HINT, bucket_options, why_of
from tidewire_kit.errors import FailedPrecondition, InvalidArgument, TidewireError, Unavailable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_STALE_SECONDS = 86_400.0
"""After so long a file that was being written is of a backup that was killed."""


class Place(Protocol):
    """A place for backups. Safe to use by several threads."""

    name: str
    """For people: without secrets."""

    def sizes(self, prefix: str) -> dict[str, int]:
        """Key → size of everything whose key begins with `prefix`, which ends with a slash."""

    def put(self, key: str, data: bytes) -> None:
        """Stores durably, over what is there. FailedPrecondition (BACKUP_PLACE_FULL), Unavailable."""

    def get(self, key: str) -> bytes | None:
        """The bytes; None when there is no such key. Unavailable."""


def place_at(text: str, environ: Mapping[str, str]) -> Place:
    """The place that a user named: a path, or s3://BUCKET/PREFIX. InvalidArgument."""
    url = urlsplit(text)
    if url.scheme == "s3":
        if url.username or url.password or url.query:
            raise InvalidArgument(
                "DEST", "no credentials or options in the URL: others see it; " + HINT, reason="BACKUP_PLACE"
            )
        if not url.netloc:
            raise InvalidArgument("DEST", "name the bucket: s3://BUCKET/PREFIX", reason="BACKUP_PLACE")
        return BucketPlace(url.netloc, url.path.strip("/"), environ)
    if "://" in text:
        raise InvalidArgument(
            "DEST",
            f"{url.scheme}:// is not known; give a directory or s3://BUCKET/PREFIX",
            reason="BACKUP_PLACE",
        )
    return DirectoryPlace(Path(text).expanduser().absolute())


class DirectoryPlace:
    """A directory, made when something is put there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)
        self._writing = root / ".writing"

    def sizes(self, prefix: str) -> dict[str, int]:
        """See Place."""
        found = {}
        with self._errors():
            for directory, _, names in os.walk(self.root / prefix):
                for name in names:
                    path = Path(directory, name)
                    found[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return found

    def put(self, key: str, data: bytes) -> None:
        """See Place."""
        target = self.root / key
        with self._errors():
            target.parent.mkdir(parents=True, exist_ok=True)
            self._writing.mkdir(exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._writing)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
                os.chmod(temporary, 0o640)
                os.replace(temporary, target)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            _sync(target.parent)

    def get(self, key: str) -> bytes | None:
        """See Place."""
        with self._errors():
            try:
                return (self.root / key).read_bytes()
            except FileNotFoundError:
                return None

    def remove_stale(self) -> None:
        """Removes what killed backups have left half written."""
        with contextlib.suppress(OSError):
            for path in self._writing.iterdir():
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < time.time() - _STALE_SECONDS:
                        path.unlink()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise FailedPrecondition(
                    f"{self.root}: {error.strerror}; make room there, and repeat: what is copied is not copied again",
                    reason="BACKUP_PLACE_FULL",
                    subject=self.name,
                ) from error
            raise Unavailable("backups", f"{error.filename or self.root}: {error.strerror}") from error


class BucketPlace:
    """A prefix in an S3 bucket. Endpoint, region and credentials are those of the AWS_* variables."""

    def __init__(self, bucket: str, prefix: str, environ: Mapping[str, str]) -> None:
        self.name = f"s3://{bucket}/{prefix}"
        self._prefix = f"{prefix}/" if prefix else ""
        # Only here: no other command needs the library.
        from obstore.store import S3Store

        options = bucket_options(environ, timeout_seconds=120, retries=4, retry_seconds=60)
        self._store = S3Store(bucket, **options)

    def sizes(self, prefix: str) -> dict[str, int]:
        """See Place."""
        import obstore

        def look() -> dict[str, int]:
            found = {}
            for some in obstore.list(self._store, self._prefix + prefix):
                for meta in some:
                    found[str(meta["path"]).removeprefix(self._prefix)] = int(meta["size"])
            return found

        return self._asked(look)

    def put(self, key: str, data: bytes) -> None:
        """See Place."""
        import obstore

        self._asked(lambda: obstore.put(self._store, self._prefix + key, data, use_multipart=False))

    def get(self, key: str) -> bytes | None:
        """See Place."""
        import obstore

        def fetch() -> bytes | None:
            try:
                return bytes(obstore.get(self._store, self._prefix + key).bytes())
            except FileNotFoundError:
                return None

        return self._asked(fetch)

    def _asked[T](self, ask: Callable[[], T]) -> T:
        from obstore.exceptions import BaseError

        try:
            return ask()
        except TidewireError:
            raise
        except (BaseError, OSError) as error:
            raise Unavailable("backups", f"{self.name}: {why_of(error)}; {HINT}") from None


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
