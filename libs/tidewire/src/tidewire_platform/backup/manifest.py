"""A backup's manifest, and the keys of a place for backups.

    backups/20261123T010203Z-5f3a.json    one manifest for each backup, written last
    objects/ab/ab34…                      pieces of files, named by their SHA-256

A manifest lists every file whole, as pieces; pieces that an earlier backup has brought are only named. So every backup
is restored by its own manifest alone, and what makes it incremental is that most of its pieces are there already. The
manifest carries a checksum of itself.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tidewire_kit.errors import FailedPrecondition
from tidewire_platform.backup.places import Place

FORMAT = 1
_MANIFESTS = "backups/"
OBJECTS = "objects/"


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive bytes of a file."""

    sha256: str
    length: int

    @property
    def key(self) -> str:
        """Where its bytes are in the place."""
        return f"{OBJECTS}{self.sha256[:2]}/{self.sha256}"


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file, its pieces in order."""

    path: str
    """Below the data directory."""
    pieces: tuple[Piece, ...]

    @property
    def length(self) -> int:
        """Bytes."""
        return sum(piece.length for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class SavedTopic:
    """Where the log has to go on: behind what the backup holds of a topic."""

    incarnation: str
    """Hexadecimal."""
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole backup."""

    backup: str
    """Its name: rises with time."""
    time_us: int
    """Everything acknowledged before is in it."""
    source: str
    """Identity of the data directory: block files of one source keep their names and only grow."""
    previous: str
    """The newest backup of that source before it; empty: none."""
    data_format: int
    """Of the data directory."""
    unstored_records: int
    """What the log held and storage did not: not in the backup."""
    topics: Mapping[str, SavedTopic]
    files: tuple[SavedFile, ...]

    @property
    def length(self) -> int:
        """Bytes when restored."""
        return sum(file.length for file in self.files)


def name_of(time_us: int, salt: str) -> str:
    """The name of a backup begun at a time."""
    moment = datetime.fromtimestamp(time_us / 1e6, UTC)
    return f"{moment:%Y%m%dT%H%M%S.%f}"[:-3] + f"Z-{salt}"


def manifest_key(backup: str) -> str:
    """Where a backup's manifest is."""
    return f"{_MANIFESTS}{backup}.json"


def encode(manifest: Manifest) -> bytes:
    """The manifest's bytes."""
    body = asdict(manifest)
    text = _canonical({"format": FORMAT, "checksum": _checksum(body), "manifest": body})
    return text.encode()


def backup_names(place: Place) -> list[str]:
    """All backups, the oldest first."""
    return sorted(
        key.removeprefix(_MANIFESTS).removesuffix(".json")
        for key in place.sizes(_MANIFESTS)
        if key.endswith(".json")
    )


def read(place: Place, backup: str) -> Manifest:
    """A backup's manifest. FailedPrecondition: BACKUP_NONE, BACKUP_DAMAGED, FORMAT_NEWER."""
    key = manifest_key(backup)
    data = place.get(key)
    if data is None:
        raise FailedPrecondition(
            f"{place.name} has no backup {backup}; `tidewire storage backups` lists those it has",
            reason="BACKUP_NONE",
            subject=backup,
        )
    try:
        content = json.loads(data)
        version = int(content["format"])
    except (ValueError, KeyError, TypeError):
        raise damaged(place, f"{key} is no manifest") from None
    if version > FORMAT:
        raise FailedPrecondition(
            f"{key} in {place.name} has format {version}, newer than {FORMAT}; restore it by the version that wrote "
            "it, or a newer one",
            reason="FORMAT_NEWER",
            subject=key,
        )
    try:
        body = content["manifest"]
        if content["checksum"] != _checksum(body):
            raise damaged(place, f"{key} fails its checksum")
        return _decode(body)
    except (ValueError, KeyError, TypeError):
        raise damaged(place, f"{key} is no manifest") from None


def damaged(place: Place, what: str) -> FailedPrecondition:
    """The error for something in a place that is not as it was put there."""
    return FailedPrecondition(
        f"{place.name}: {what}; restore another backup (`tidewire storage backups`), or bring the object back",
        reason="BACKUP_DAMAGED",
        subject=place.name,
    )


def _decode(body: Mapping[str, Any]) -> Manifest:
    files = tuple(
        SavedFile(file["path"], tuple(Piece(piece["sha256"], piece["length"]) for piece in file["pieces"]))
        for file in body["files"]
    )
    topics = {
        name: SavedTopic(topic["incarnation"], tuple(topic["offsets"]))
        for name, topic in body["topics"].items()
    }
    return Manifest(**{**body, "files": files, "topics": topics})


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(body).encode()).hexdigest()
