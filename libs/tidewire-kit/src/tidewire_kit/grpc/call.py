"""What a servicer is told of the call it answers, besides the request."""

import secrets
from typing import Any

from grpc import aio

from tidewire_kit.errors import PermissionDenied
from tidewire_kit.identity.caller import Caller
from tidewire_kit.identity.verifier import TokenVerifier
from tidewire_kit.ids import TenantId


class Call:
    """One call: who calls which method, and how long they will wait. Made by `service_handler`."""

    __slots__ = ("_trace_id", "_verifier", "caller", "context", "method")

    def __init__(
        self, caller: Caller, method: str, context: aio.ServicerContext[Any, Any], verifier: TokenVerifier
    ) -> None:
        self.caller = caller
        self.method = method
        """Name of the RPC, for example `PublishTelemetry`."""
        self.context = context
        """The library's context: to write to a stream, read from one, or set trailing metadata."""
        self._verifier = verifier
        self._trace_id = ""

    @property
    def tenant(self) -> TenantId:
        """The caller's tenant; PermissionDenied for a caller that has none (administrators, services)."""
        tenant = self.caller.tenant
        if tenant is None:
            raise PermissionDenied(
                "this call acts within a tenant and the token names none; use a token of that tenant",
                reason="NO_TENANT",
            )
        return tenant

    def tenant_for(self, name: str) -> TenantId:
        """Returns the caller's tenant if the resource name `tenants/{tenant}[/...]` is within it.

        Else PermissionDenied, whether such a tenant exists or not. Checks the name's tenant only: parse the rest after.
        """
        tenant = self.tenant
        collection, _, rest = name.partition("/")
        if collection != "tenants" or rest.partition("/")[0] != self.caller.tenant_id:
            raise PermissionDenied(
                "the resource's tenant is not the token's; use a token of that tenant", reason="OTHER_TENANT"
            )
        return tenant

    def check(self) -> None:
        """Raises Unauthenticated when the caller's token holds no longer. For each message of an open stream; cheap."""
        self._verifier.check(self.caller)

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline, 0 when it has passed; None when the caller waits for ever."""
        remaining: float | None = self.context.time_remaining()  # the stub forgets None
        return remaining

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits: the caller's `traceparent` if it sent one, otherwise made here at first use."""
        if not self._trace_id:
            self._trace_id = trace_id_of(self.context)
        return self._trace_id


def trace_id_of(context: aio.ServicerContext[Any, Any]) -> str:
    """Returns the trace id of a call's W3C `traceparent`, or a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and isinstance(value, str):
            parts = value.split("-")
            if len(parts) == 4 and len(parts[1]) == 32 and set(parts[1]) <= set("0123456789abcdef"):
                return parts[1]
    return secrets.token_hex(16)
