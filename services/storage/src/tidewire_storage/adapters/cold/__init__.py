"""Places for the objects of the cold tier: a directory, or a bucket of an object store."""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tidewire_kit.errors import InvalidArgument
from tidewire_storage.adapters.cold.directory import DirectoryColdStore
from tidewire_storage.ports import ColdStore

_SETTING = "TIDEWIRE_STORAGE_COLD_URL"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def cold_store_at(text: str, environ: Mapping[str, str]) -> ColdStore:
    """The place that a setting names: a path, file:///PATH, or s3://BUCKET/PREFIX. InvalidArgument."""
    url = urlsplit(text)
    if url.scheme == "s3":
        if url.username or url.password or url.query:
            raise InvalidArgument(
                _SETTING, "no credentials in the URL; set AWS_ACCESS_KEY_ID and its fellows"
            )
        if not url.netloc:
            raise InvalidArgument(_SETTING, "name the bucket: s3://BUCKET/PREFIX")
        # Only here: the library is not needed where objects lie in a directory.
        from tidewire_storage.adapters.cold.bucket import BucketColdStore

        return BucketColdStore(url.netloc, url.path.strip("/"), environ)
    path = Path(url.path if url.scheme == "file" else text)
    if (_SCHEME.match(text) and url.scheme != "file") or not path.is_absolute():
        raise InvalidArgument(_SETTING, f"{text} is neither an absolute path nor s3://BUCKET/PREFIX")
    return DirectoryColdStore(path)


__all__ = ["DirectoryColdStore", "cold_store_at"]
