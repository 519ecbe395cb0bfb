"""Making tokens for people and services. Called by grpc_api; who may make which is decided here, before any look-up."""

from collections.abc import Collection, Sequence

from tidewire_kit.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from tidewire_kit.ids import TenantId, tenant_name
from tidewire_registry.domain.tenants import TenantState
from tidewire_registry.ports import RegistryStore, TokenMaker

PLATFORM_ROLES = frozenset({"platform-admin", "service"})
"""Of tokens without a tenant; only a platform administrator makes them."""
TENANT_ROLES = frozenset({"tenant-admin", "operator", "reader"})
"""Of tokens of a tenant."""
DEFAULT_TTL_SECONDS = 24 * 3600
_MIN_TTL_SECONDS = 60
_MAX_TTL_SECONDS = 365 * 86_400
_MAX_SUBJECT_LENGTH = 128


def check_grant(maker_is_platform_admin: bool, has_tenant: bool, roles: Sequence[str]) -> None:
    """Raises InvalidArgument for roles that no such token has, PermissionDenied for those the maker may not give."""
    if not roles:
        raise InvalidArgument("roles", f"is empty; give some of {_listed(PLATFORM_ROLES | TENANT_ROLES)}")
    for role in roles:
        if role not in PLATFORM_ROLES | TENANT_ROLES:
            raise InvalidArgument(
                "roles", f"unknown role {role[:40]!r}; give {_listed(PLATFORM_ROLES | TENANT_ROLES)}"
            )
    if not maker_is_platform_admin and not TENANT_ROLES.issuperset(roles):
        raise PermissionDenied(
            f"a tenant administrator gives {_listed(TENANT_ROLES)} only", reason="ROLE_NOT_YOURS"
        )
    if not maker_is_platform_admin and not has_tenant:
        raise InvalidArgument("tenant", "is empty; name your tenant, tenants/TENANT")
    if has_tenant and not TENANT_ROLES.issuperset(roles):
        raise InvalidArgument(
            "roles", f"of a tenant's token are {_listed(TENANT_ROLES)}; leave tenant out for others"
        )
    if not has_tenant and not PLATFORM_ROLES.issuperset(roles):
        raise InvalidArgument("tenant", f"is empty; roles other than {_listed(PLATFORM_ROLES)} need one")


class Tokens:
    """Knows no keys; the maker does."""

    def __init__(self, store: RegistryStore, maker: TokenMaker) -> None:
        self._store = store
        self._maker = maker

    async def create(
        self,
        tenant: TenantId | None,
        tenant_id: str,
        subject: str,
        roles: Sequence[str],
        ttl_seconds: int | None,
    ) -> tuple[str, int]:
        """(token, unix µs of its end). Call `check_grant` first.

        Raises InvalidArgument, NotFound, FailedPrecondition.
        """
        if not subject or len(subject) > _MAX_SUBJECT_LENGTH or not subject.isprintable():
            raise InvalidArgument("subject", f"must be 1 to {_MAX_SUBJECT_LENGTH} printable characters")
        ttl = DEFAULT_TTL_SECONDS if ttl_seconds is None else ttl_seconds
        if not _MIN_TTL_SECONDS <= ttl <= _MAX_TTL_SECONDS:
            raise InvalidArgument("ttl", f"is {ttl} s; give 1 minute to 365 days")
        if tenant is not None:
            found = await self._store.tenant(tenant)
            if found is None:
                raise NotFound(tenant_name(tenant_id))
            if found.state is not TenantState.ACTIVE:
                why = f"{found.name} is {found.state.name}; its tokens would be refused, so unblock it first"
                raise FailedPrecondition(why, reason="TENANT_BLOCKED", subject=found.name)
        return self._maker.make(subject, tenant, sorted(set(roles)), ttl)


def _listed(roles: Collection[str]) -> str:
    return ", ".join(sorted(roles))
