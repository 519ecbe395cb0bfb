"""The rest of the world behind the registry's ports: storage's figures, the services' addresses, signed tokens."""

from collections.abc import Callable, Mapping, Sequence

import grpc
from grpc import aio

from tidewire.storage.v1.storage_pb2 import GetStorageUsageRequest
from tidewire.storage.v1.storage_pb2_grpc import StorageServiceStub
from tidewire_kit.clock import Clock
from tidewire_kit.datadir import DataDir
from tidewire_kit.endpoints import read_endpoints
from tidewire_kit.errors import TidewireError
from tidewire_kit.identity import Role, TokenSigner
from tidewire_kit.ids import TenantId, tenant_name, uid_hex
from tidewire_kit.log.port import MessageLog
from tidewire_kit.observability.logs import get_logger
from tidewire_registry.ports import StorageFigures

logger = get_logger(__name__)

_STORAGE_SECONDS = 2.0


class GrpcStorageUsage:
    """Asks the storage service, with the service token. A channel is made at the first call, and anew after a failure,
    since storage may start later and elsewhere."""

    def __init__(self, connect: Callable[[], aio.Channel], clock: Clock) -> None:
        self._connect = connect
        self._clock = clock
        self._channel: aio.Channel | None = None

    async def measure(self, tenant: TenantId, tenant_id: str) -> StorageFigures | None:
        """None when storage does not answer within 2 s."""
        try:
            if self._channel is None:
                self._channel = self._connect()
            stub = StorageServiceStub(self._channel)  # type: ignore[no-untyped-call, unused-ignore]
            request = GetStorageUsageRequest(tenant=tenant_name(tenant_id))
            response = await stub.GetStorageUsage(request, timeout=_STORAGE_SECONDS)
        except (grpc.RpcError, TidewireError) as error:
            logger.info("storage_usage_unavailable", error=type(error).__name__)
            await self.close()
            return None
        for usage in response.usages:
            if usage.tenant_uid == uid_hex(tenant):
                return StorageFigures(
                    usage.accepted_readings, usage.stored_readings, usage.stored_bytes, self._clock.now_us()
                )
        return StorageFigures(0, 0, 0, self._clock.now_us())

    async def close(self) -> None:
        """Closes the channel. Idempotent."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()


class LivePlatform:
    """Addresses of the members of the log, and of processes that are only in `run/endpoints.json`."""

    def __init__(self, log: MessageLog, data_dir: DataDir) -> None:
        self._log = log
        self._data_dir = data_dir

    def addresses(self) -> Mapping[str, Sequence[str]]:
        """By service; each address once, in order of start."""
        found: dict[str, list[str]] = {}
        for member in self._log.members():
            address = member.addresses.get("grpc", "")
            if address and address not in found.setdefault(member.service, []):
                found[member.service].append(address)
        for service, endpoints in read_endpoints(self._data_dir).items():
            if not found.get(service):
                found[service] = [endpoint.address for endpoint in endpoints]
        return {service: addresses for service, addresses in found.items() if addresses}


class SigningTokenMaker:
    """Signs with the platform's key."""

    def __init__(self, signer: TokenSigner) -> None:
        self._signer = signer

    def make(
        self, subject: str, tenant: TenantId | None, roles: Sequence[str], ttl_seconds: int
    ) -> tuple[str, int]:
        """See the kit's TokenSigner."""
        signed = self._signer.sign_user(subject, tenant, frozenset(Role(role) for role in roles), ttl_seconds)
        return signed.token, signed.expires_at_us
