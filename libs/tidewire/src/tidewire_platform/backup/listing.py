"""What backups a place has, and whether all their objects are there: the verb `tidewire storage backups`."""

from typing import Any

from tidewire_cli.looks import utc_text
from tidewire_kit.errors import FailedPrecondition
from tidewire_platform.backup.manifest import OBJECTS, backup_names, read
from tidewire_platform.backup.places import Place


def listed(place: Place) -> list[dict[str, Any]]:
    """One row a backup, the oldest first. By the sizes of objects; their bytes are checked when they are restored."""
    sizes = place.sizes(OBJECTS)
    seen: set[str] = set()
    rows: list[dict[str, Any]] = []
    for name in backup_names(place):
        try:
            manifest = read(place, name)
        except FailedPrecondition as error:
            rows.append({"backup": name, "state": error.message})
            continue
        pieces = {piece.key: piece.length for file in manifest.files for piece in file.pieces}
        missing = sorted(key for key, length in pieces.items() if sizes.get(key) != length)
        rows.append(
            {
                "backup": name,
                "time": utc_text(manifest.time_us // 1_000_000 * 1_000_000),
                "bytes": manifest.length,
                "new_bytes": sum(length for key, length in pieces.items() if key not in seen),
                "previous": manifest.previous,
                "state": f"{len(missing)} objects missing or cut short, first {missing[0]}"
                if missing
                else "whole",
            }
        )
        seen |= pieces.keys()
    return rows
