"""Who may call what. One table; the kit refuses to serve an RPC that is not in it."""

from tidewire_kit.identity import Role

_OF_A_TENANT = frozenset({Role.TENANT_ADMIN, Role.OPERATOR, Role.READER})

ACCESS: dict[str, frozenset[Role]] = {
    "GetLatest": _OF_A_TENANT,
    "ListSeries": _OF_A_TENANT,
    "ReadSeries": _OF_A_TENANT,
    "Aggregate": _OF_A_TENANT,
    "RunSql": _OF_A_TENANT,
    "Report": _OF_A_TENANT,
    "ListEvents": _OF_A_TENANT,
    "GetLedger": _OF_A_TENANT | {Role.PLATFORM_ADMIN},
    "GetStorageUsage": _OF_A_TENANT | {Role.PLATFORM_ADMIN, Role.SERVICE},
    "SealEpochs": frozenset({Role.PLATFORM_ADMIN}),
}

PLATFORM_WIDE = frozenset({Role.PLATFORM_ADMIN, Role.SERVICE})
"""Roles that may name any tenant, or none for all, where the table lets them call."""
