"""Identifiers: names are for people, uids are for keys.

Every part uses this module to check names that people chose, to build and take apart resource names, to make uids, and
to find a device's partition. Names are checked with `fullmatch`, so a trailing newline is no part of any of them.
"""

import re
import secrets
from typing import NewType

import xxhash

from tidewire_kit.errors import InvalidArgument

Uid = NewType("Uid", bytes)
"""A 128-bit identifier, 16 raw bytes, never reused. APIs and logs show it as 32 hexadecimal digits."""

TenantId = NewType("TenantId", bytes)
"""A tenant's uid: the first argument of every use case and port method, and the first component of every key."""

UID_BYTES = 16

_TENANT = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}")
_METRIC = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DEVICE_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_UID_HEX = re.compile(r"[0-9a-f]{32}")
_LABEL_VALUE_CHARACTERS = 128


def new_uid() -> Uid:
    """Returns a new random uid."""
    return Uid(secrets.token_bytes(UID_BYTES))


def uid_hex(uid: bytes) -> str:
    """Returns the 32 hexadecimal digits of a uid."""
    return uid.hex()


def parse_uid(text: str, *, field: str = "uid") -> Uid:
    """Returns the uid of 32 lower-case hexadecimal digits; InvalidArgument naming `field` otherwise."""
    if _UID_HEX.fullmatch(text) is None:
        raise InvalidArgument(field, "must be 32 lower-case hexadecimal digits")
    return Uid(bytes.fromhex(text))


def check_tenant_name(text: str, *, field: str = "tenant_id") -> str:
    """Returns a valid tenant id unchanged: 1 to 40 of `a-z 0-9 -`, first a letter, last no hyphen."""
    rule = "1 to 40 lower-case letters, digits and hyphens, a letter first, no hyphen last"
    return _check(_TENANT, text, field, rule)


def check_device_name(text: str, *, field: str = "device_id") -> str:
    """Returns a valid device id unchanged: 1 to 63 of `A-Z a-z 0-9 . _ : -`, first a letter or digit; case counts."""
    return _check(_DEVICE, text, field, "1 to 63 letters, digits and . _ : -, a letter or digit first")


def check_metric(text: str, *, field: str = "metric") -> str:
    """Returns a valid metric name unchanged: 1 to 63 of `a-z 0-9 _`, first a letter."""
    return _check(_METRIC, text, field, "1 to 63 lower-case letters, digits and underscores, a letter first")


def check_device_type(text: str, *, field: str = "type") -> str:
    """Returns a valid device type unchanged: 1 to 63 of `a-z 0-9 _ -`, first a letter."""
    rule = "1 to 63 lower-case letters, digits, hyphens and underscores, a letter first"
    return _check(_DEVICE_TYPE, text, field, rule)


def check_label(key: str, value: str, *, field: str = "labels") -> None:
    """Checks a label: key 1 to 63 of `a-z 0-9 _ . -` with a letter first, value at most 128 characters."""
    _check(_LABEL_KEY, key, field, "keys of 1 to 63 lower-case letters, digits and _ . -, a letter first")
    if len(value) > _LABEL_VALUE_CHARACTERS:
        raise InvalidArgument(f"{field}.{key}", f"must have at most {_LABEL_VALUE_CHARACTERS} characters")


def tenant_name(tenant_id: str) -> str:
    """Returns the resource name of a tenant from its id (the name people gave it, not the uid)."""
    return f"tenants/{tenant_id}"


def device_name(tenant_id: str, device_id: str) -> str:
    """Returns the resource name of a device."""
    return f"tenants/{tenant_id}/devices/{device_id}"


def credential_name(tenant_id: str, device_id: str, credential_id: str) -> str:
    """Returns the resource name of a credential; `credential_id` is its uid in hexadecimal."""
    return f"tenants/{tenant_id}/devices/{device_id}/credentials/{credential_id}"


def parse_tenant_name(name: str, *, field: str = "name") -> str:
    """Returns the tenant id of `tenants/{tenant}`; InvalidArgument naming `field` otherwise."""
    match name.split("/"):
        case ["tenants", tenant]:
            return check_tenant_name(tenant, field=field)
    raise _not_a(field, name, "tenants/{tenant}")


def parse_device_name(name: str, *, field: str = "name") -> tuple[str, str]:
    """Returns (tenant id, device id) of a device's resource name; InvalidArgument naming `field` otherwise."""
    match name.split("/"):
        case ["tenants", tenant, "devices", device]:
            return check_tenant_name(tenant, field=field), check_device_name(device, field=field)
    raise _not_a(field, name, "tenants/{tenant}/devices/{device}")


def parse_credential_name(name: str, *, field: str = "name") -> tuple[str, str, Uid]:
    """Returns (tenant id, device id, credential uid) of a credential's resource name; InvalidArgument otherwise."""
    match name.split("/"):
        case ["tenants", tenant, "devices", device, "credentials", credential]:
            return (
                check_tenant_name(tenant, field=field),
                check_device_name(device, field=field),
                parse_uid(credential, field=field),
            )
    raise _not_a(field, name, "tenants/{tenant}/devices/{device}/credentials/{credential}")


def partition_of(tenant_uid: bytes, device_uid: bytes, partitions: int) -> int:
    """Returns a device's partition, 0 to `partitions` - 1: xxh3_64(tenant uid ‖ device uid) mod `partitions`.

    The same for ever: stored records depend on it. Computed on our side only, never by a client.
    """
    return xxhash.xxh3_64_intdigest(tenant_uid + device_uid) % partitions


def _check(pattern: re.Pattern[str], text: str, field: str, rule: str) -> str:
    if pattern.fullmatch(text) is None:
        raise InvalidArgument(
            field, f"{_shown(text)} is not valid; use {rule}" if text else f"is empty; use {rule}"
        )
    return text


def _not_a(field: str, name: str, pattern: str) -> InvalidArgument:
    return InvalidArgument(field, f"{_shown(name)} does not have the form {pattern}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "…")
