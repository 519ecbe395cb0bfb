"""The directory: a replica of the registry's topic in every process."""

from tidewire_kit.directory.replica import FRESH_SECONDS, Directory, TableSource
from tidewire_kit.directory.table import DeviceTable
from tidewire_kit.directory.views import (
    CredentialView,
    Quotas,
    Retention,
    SigningKeyView,
    TenantView,
    Tombstone,
)

__all__ = [
    "FRESH_SECONDS",
    "CredentialView",
    "DeviceTable",
    "Directory",
    "Quotas",
    "Retention",
    "SigningKeyView",
    "TableSource",
    "TenantView",
    "Tombstone",
]
