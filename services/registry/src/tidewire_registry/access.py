"""Who may call which RPC, in one table. A test walks the descriptors: every RPC is in it.

What a role may do is within the caller's own tenant; a platform administrator names any tenant. Further limits (which
roles a token may get) are the use cases'.
"""

from collections.abc import Mapping

from tidewire_kit.identity import Role

_PLATFORM = frozenset({Role.PLATFORM_ADMIN})
_ADMINS = frozenset({Role.PLATFORM_ADMIN, Role.TENANT_ADMIN})
_OPERATORS = _ADMINS | {Role.OPERATOR}
_READERS = _OPERATORS | {Role.READER}
_EVERYBODY = frozenset(Role)

ACCESS: Mapping[str, frozenset[Role]] = {
    "CreateTenant": _PLATFORM,
    "GetTenant": _READERS,
    "ListTenants": _READERS,
    "UpdateTenant": _PLATFORM,
    "DeleteTenant": _PLATFORM,
    "BlockTenant": _PLATFORM,
    "UnblockTenant": _PLATFORM,
    "GetTenantUsage": _READERS,
    "CreateDevice": _OPERATORS,
    "BatchCreateDevices": _OPERATORS,
    "GetDevice": _READERS,
    "ListDevices": _READERS,
    "UpdateDevice": _OPERATORS,
    "DeleteDevice": _OPERATORS,
    "BlockDevice": _OPERATORS,
    "UnblockDevice": _OPERATORS,
    "ResolveDevices": frozenset({Role.SERVICE}),
    "CreateCredential": _ADMINS,
    "ListCredentials": _READERS,
    "DeleteCredential": _ADMINS,
    "CreateToken": _ADMINS,
    "GetEndpoints": _EVERYBODY,
}
