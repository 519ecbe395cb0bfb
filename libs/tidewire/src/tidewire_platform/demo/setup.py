"""Makes what the demo needs on a platform, and finds it again on the next run: tenant, token, devices, device keys."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tidewire_client import (
    AsyncAdminClient,
    AsyncConnection,
    DeviceKey,
    FileToken,
    InvalidArgument,
    Unauthenticated,
    generate_private_key,
    new_device,
    public_key_pem,
    save_private_key,
)
from tidewire_kit.datadir import DataDir, write_private
from tidewire_platform.demo.fleet import GATEWAY, METERS
from tidewire_platform.demo.sources import Source

TENANT = "demo"
TOKEN_LIFETIME = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class DemoAccess:
    """Who the demo is on the platform."""

    endpoint: str
    ca_file: Path | None
    tenant_uid: str
    token_file: Path
    """Token of an administrator of the tenant."""
    keys: dict[str, DeviceKey]
    """Device → its own identity: the real sensors', and the gateway's, which publishes for the fleet."""

    def connection(self, identity: str = "") -> AsyncConnection:
        """A connection as one of the devices, or as the tenant's administrator."""
        source = self.keys[identity] if identity else FileToken(self.token_file)
        return AsyncConnection(self.endpoint, token=source, tenant=TENANT, ca_file=self.ca_file)


async def prepare(
    data_dir: DataDir, endpoint: str, ca_file: Path | None, sources: list[Source]
) -> DemoAccess:
    """Makes what is missing. Safe to repeat; raises TidewireError of the client."""
    admin_token = FileToken(data_dir.admin_token_file)
    async with AsyncConnection(endpoint, token=admin_token, ca_file=ca_file) as connection:
        admin = AsyncAdminClient(connection)
        tenant = await admin.ensure_tenant(TENANT, display_name="Demonstration")
        token_file = data_dir.keys / "demo.token"
        if not await _token_holds(DemoAccess(endpoint, ca_file, tenant.uid, token_file, {})):
            answer = await admin.create_token("demo", ["tenant-admin"], tenant=TENANT, ttl=TOKEN_LIFETIME)
            write_private(token_file, answer.token.encode())
        devices = {
            source.device: new_device(display_name=source.title, type=source.type, location=source.location)
            for source in sources
        }
        devices[GATEWAY] = new_device(display_name="gateway of the simulated fleet", type="gateway")
        await admin.batch_create_devices(devices, tenant=TENANT, allow_existing=True)
        parent = f"tenants/{TENANT}/devices/{GATEWAY}"
        meters = {
            meter: new_device(type="meter", parent=parent, labels={"floor": str(number // 50 + 1)})
            for number, meter in enumerate(METERS)
        }
        await admin.batch_create_devices(meters, tenant=TENANT, allow_existing=True)
        keys = {device: await _device_key(admin, data_dir, device) for device in devices}
    return DemoAccess(endpoint, ca_file, tenant.uid, token_file, keys)


async def _token_holds(access: DemoAccess) -> bool:
    async with access.connection() as connection:
        try:
            await AsyncAdminClient(connection).get_tenant()
        except (InvalidArgument, Unauthenticated):  # there is none; it has expired; its tenant was deleted
            return False
    return True


async def _device_key(admin: AsyncAdminClient, data_dir: DataDir, device: str) -> DeviceKey:
    directory = data_dir.root / "demo" / "keys"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key_file, note = directory / f"{device}.pem", directory / f"{device}.credential"
    if key_file.exists() and note.exists():
        credential = note.read_text().strip()
        async for known in admin.list_credentials(device, tenant=TENANT):
            if known.name.endswith(f"/{credential}"):
                return DeviceKey(device, credential, key_file)
    key_file.unlink(missing_ok=True)
    key = generate_private_key()
    save_private_key(key, key_file)
    made = await admin.create_credential(device, public_key_pem(key), tenant=TENANT)
    credential = made.name.rpartition("/")[2]
    write_private(note, credential.encode())
    return DeviceKey(device, credential, key_file)
