"""What is deleted is gone: planted values and words are looked for in the files of every service."""

import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tidewire.registry.v1 import registry_pb2, resources_pb2
from tidewire_client import generate_private_key, public_key_pem
from tidewire_testkit.whole.platform import TenantAccess, UpProcess, running, until
from tidewire_testkit.whole.readback import publish, read_device, settled_ledger, wait_visible

pytestmark = [pytest.mark.platform, pytest.mark.embedded, pytest.mark.timeout(120)]

SOON = {"TIDEWIRE_STORAGE_PURGE_SECONDS": "0.2", "TIDEWIRE_STORAGE_RECOUNT_SECONDS": "0.5"}


def needle(number: int) -> float:
    """A value whose bytes are found again in a file: few rows are not compressed."""
    return float(struct.unpack("<d", b"needle" + struct.pack("<H", 0x4000 + number))[0])


def holds(directory: Path, *texts: bytes) -> list[bytes]:
    """Those of `texts` that are in any file below `directory`."""
    found: set[bytes] = set()
    for path in directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found.update(text for text in texts if text in content)
    return sorted(found)


def value_bytes(number: int) -> bytes:
    return struct.pack("<d", needle(number))


def soon(check: Callable[[], object]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return bool(check())

    return ask


async def create(up: UpProcess, access: TenantAccess, device: str, word: str) -> resources_pb2.Device:
    """A device with a word in what the registry keeps of it, and a credential."""
    made = await up.registry().CreateDevice(
        registry_pb2.CreateDeviceRequest(
            parent=access.name,
            device_id=device,
            device=resources_pb2.Device(display_name=f"{word}-name", labels={"planted": f"{word}-label"}),
        ),
        metadata=access.metadata,
        timeout=10,
    )
    await up.registry().UpdateDevice(
        registry_pb2.UpdateDeviceRequest(
            device=resources_pb2.Device(name=made.name, display_name=f"{word}-later"),
            update_mask=FieldMask(paths=["display_name"]),
        ),
        metadata=access.metadata,
        timeout=10,
    )
    credential = resources_pb2.Credential(public_key_pem=public_key_pem(generate_private_key()))
    await up.registry().CreateCredential(
        registry_pb2.CreateCredentialRequest(parent=made.name, credential=credential),
        metadata=access.metadata,
        timeout=10,
    )
    return made


async def test_a_deleted_device_and_a_deleted_tenant_leave_nothing_behind(data_dir: Path) -> None:
    now = time.time_ns() // 1000
    async with running(data_dir, environ=SOON) as up:
        gone, stays = await up.create_tenant("gone"), await up.create_tenant("stays")
        await create(up, gone, "sensor", "word-of-the-gone")
        doomed = await create(up, stays, "doomed", "word-of-the-doomed")
        await create(up, stays, "kept", "word-of-the-kept")
        planted = {(gone, "sensor"): 1, (stays, "doomed"): 2, (stays, "kept"): 3}
        for (access, device), number in planted.items():
            rows = {now + row: {"level": needle(number)} for row in range(5)}
            assert (await publish(up, access, device, rows)).accepted_readings == 5
            await wait_visible(up, access, device, rows)
        blocks, storage = data_dir / "storage" / "blocks", data_dir / "storage"
        values = [value_bytes(number) for number in (1, 2, 3)]
        assert holds(blocks, *values) == values

        await up.registry().DeleteDevice(
            registry_pb2.DeleteDeviceRequest(name=doomed.name), metadata=stays.metadata, timeout=10
        )
        await until(soon(lambda: holds(storage, *values) == [values[0], values[2]]), "the device's are gone")
        await create(up, stays, "doomed", "word-of-another")
        assert await read_device(up, stays, "doomed") == [], "a new one of the name sees nothing"

        await up.registry().DeleteTenant(
            registry_pb2.DeleteTenantRequest(name=gone.name), metadata=up.admin_metadata(), timeout=10
        )
        await until(soon(lambda: holds(storage, *values) == [values[2]]), "the tenant's are gone")

        async def difference() -> int | None:
            ledger = await settled_ledger(up)
            return None if ledger is None else ledger.difference_readings + 1

        assert await until(difference, "the ledger is settled") == 1, "what was purged is accounted for"
        assert len(await read_device(up, stays, "kept")) == 5

        words = [f"word-of-the-{what}".encode() for what in ("gone", "doomed", "kept")]
        await until(
            soon(lambda: holds(data_dir / "registry", *words) == [words[2]]), "the registry's words are gone"
        )
        uid = bytes.fromhex(gone.uid)
        assert holds(blocks, uid, uid.hex().encode()) == []
    assert holds(storage, *values) == [values[2]]
    assert holds(data_dir / "registry", *words) == [words[2]]
