"""The data directory of the embedded backend: whether this software can use it, and whether there is room."""

import os
from pathlib import Path
from typing import Final

from tidewire_kit.datadir import FORMAT_VERSION
from tidewire_platform.doctor.finding import Finding, ok, warning, wrong

CHECK: Final = "data directory"
FLOOR_BYTES: Final = 1 << 30
"""Below this the log refuses readings."""
LITTLE_BYTES: Final = 5 << 30

_OF_THE_COMMAND = {"device-keys"}
"""What `tidewire credential create` keeps in the default data directory, also where no platform has run."""


def check_data_dir(root: Path) -> list[Finding]:
    """Looks at a data directory and writes nothing into it."""
    subject = str(root)
    if root.exists() and not root.is_dir():
        return [wrong(CHECK, subject, "is a file, not a directory", "set TIDEWIRE_DATA_DIR to a directory")]
    entries = {path.name for path in root.iterdir()} if root.is_dir() else set()
    if entries <= _OF_THE_COMMAND:
        return [
            warning(
                CHECK,
                subject,
                "holds no data yet" if root.is_dir() else "does not exist yet",
                "start the platform, or set TIDEWIRE_DATA_DIR to its directory",
            )
        ]
    return [_format(root, subject), _writable(root, subject), _room(root, subject)]


def _format(root: Path, subject: str) -> Finding:
    try:
        text = (root / "VERSION").read_text().strip()
    except OSError as error:
        return wrong(
            CHECK,
            subject,
            f"its file VERSION cannot be read ({error.strerror}): this is no data directory of the platform",
            "set TIDEWIRE_DATA_DIR to the right one, or restore the file",
        )
    if not text.isdecimal():
        return wrong(CHECK, subject, "its file VERSION holds no number", "restore the file")
    if int(text) > FORMAT_VERSION:
        return wrong(
            CHECK,
            subject,
            f"has format {text}, this software knows formats up to {FORMAT_VERSION}",
            "use the newer version that wrote it",
        )
    return ok(CHECK, subject, f"format {text}")


def _writable(root: Path, subject: str) -> Finding:
    rooms = [
        path for path in (root, *root.iterdir()) if path.is_dir() and not os.access(path, os.W_OK | os.X_OK)
    ]
    if rooms:
        return wrong(
            CHECK,
            subject,
            f"this user cannot write {rooms[0]}",
            "give it to the user that runs the platform, or run this command as that user",
        )
    return ok(CHECK, subject, "can be written")


def _room(root: Path, subject: str) -> Finding:
    facts = os.statvfs(root)
    free, share = facts.f_bavail * facts.f_frsize, facts.f_bavail / max(facts.f_blocks, 1)
    text = f"{free / (1 << 30):.1f} GiB free ({share:.0%} of the disk)"
    if free < FLOOR_BYTES:
        return wrong(CHECK, subject, f"{text}: readings are refused below 1 GiB", "free disk space")
    if free < LITTLE_BYTES:
        return warning(CHECK, subject, f"{text}; readings are refused below 1 GiB", "free disk space")
    return ok(CHECK, subject, text)
