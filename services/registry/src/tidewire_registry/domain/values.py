"""Limits of the values that people give to tenants and devices, and etags. Used by the other domain modules."""

from collections.abc import Mapping

from tidewire_kit.errors import EtagMismatch, InvalidArgument
from tidewire_kit.ids import check_label

MAX_LABELS = 64
MAX_DISPLAY_NAME_LENGTH = 128


def check_labels(labels: Mapping[str, str], field: str) -> None:
    """Refuses more than 64 labels, keys other than `[a-z][a-z0-9_.-]{0,62}` and values over 128 characters."""
    if len(labels) > MAX_LABELS:
        raise InvalidArgument(field, f"has {len(labels)} labels; give at most {MAX_LABELS}")
    for key, value in labels.items():
        check_label(key, value, field=field)
        if not value.isprintable():
            raise InvalidArgument(f"{field}.{key}", "has control characters; remove them")


def check_display_name(display_name: str, field: str) -> None:
    """Refuses more than 128 characters and control characters."""
    if len(display_name) > MAX_DISPLAY_NAME_LENGTH:
        why = f"has {len(display_name)} characters; give at most {MAX_DISPLAY_NAME_LENGTH}"
        raise InvalidArgument(field, why)
    if not display_name.isprintable():
        raise InvalidArgument(field, "has control characters; remove them")


def etag(uid: bytes, revision: int) -> str:
    """The etag of a revision: another one for each change, and for another object of the same name."""
    return f'"{uid[:6].hex()}-{revision:x}"'


def check_etag(given: str, uid: bytes, revision: int, name: str) -> None:
    """Raises EtagMismatch unless `given` is empty or the etag of this revision."""
    if given and given != etag(uid, revision):
        raise EtagMismatch(name)
