"""Backups are taken while the platform serves, and what is restored from them is all that was there, and goes on."""

import asyncio
import contextlib
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tidewire.registry.v1 import registry_pb2
from tidewire.storage.v1 import storage_pb2
from tidewire.type.v1 import telemetry_pb2
from tidewire_platform.backup.listing import listed
from tidewire_platform.backup.places import place_at
from tidewire_testkit.leash import start_leashed
from tidewire_testkit.servers.s3 import SECRET_KEY, S3Server
from tidewire_testkit.whole.platform import TIDEWIRE, TenantAccess, UpProcess, running, until
from tidewire_testkit.whole.readback import batch_of, publish, read_device, settled_ledger, wait_visible

pytestmark = [pytest.mark.platform, pytest.mark.embedded, pytest.mark.timeout(600)]

SOON = {"TIDEWIRE_STORAGE_PURGE_SECONDS": "0.2", "TIDEWIRE_STORAGE_SEAL_SECONDS": "0.5"}
DEVICES = ("pump-1", "pump-2", "pump-3")
Readings = dict[str, set[tuple[str, int, float]]]


class Writer:
    """Publishes rows of ever new times until it is stopped, and knows what was acknowledged."""

    def __init__(self, up: UpProcess, access: TenantAccess) -> None:
        self._up = up
        self._access = access
        self._time_us = time.time_ns() // 1000 - 3_600_000_000
        self.sent: Readings = {device: set() for device in DEVICES}
        self.acknowledged: Readings = {device: set() for device in DEVICES}

    async def write(self, rounds: int) -> None:
        """So many rows of each device."""
        for _ in range(rounds):
            self._time_us += 1_000_000
            rows = {device: float(number) for number, device in enumerate(DEVICES, self._time_us % 1000)}
            for device, value in rows.items():
                self.sent[device].add(("level", self._time_us, value))
                await self._publish(batch_of(device, {self._time_us: {"level": value}}))
                self.acknowledged[device].add(("level", self._time_us, value))

    async def _publish(self, batch: telemetry_pb2.TelemetryBatch) -> None:
        """As a device does: again, under the same id, when a busy platform refuses."""

        async def attempt() -> bool:
            answer = await self._up.ingestion().PublishTelemetry(
                batch, metadata=self._access.metadata, timeout=10
            )
            assert answer.accepted_readings == 1
            return True

        await until(attempt, "a row is acknowledged", 60)

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Writes until the block ends."""
        stop = asyncio.Event()

        async def work() -> None:
            while not stop.is_set():
                await self.write(1)

        task = asyncio.create_task(work())
        try:
            yield
        finally:
            stop.set()
            await task

    def so_far(self) -> Readings:
        """What is acknowledged at this moment."""
        return {device: set(some) for device, some in self.acknowledged.items()}


async def backup(up: UpProcess, place: Path | str, data_dir: Path, *options: str) -> dict[str, Any]:
    """Runs `tidewire storage backup`; its answer."""
    done = await up.command(
        "storage", "backup", str(place), "--data-dir", str(data_dir), "-o", "json", *options, seconds=90
    )
    answer: dict[str, Any] = done.json()
    return answer


async def restore(up: UpProcess, place: Path | str, data_dir: Path, *options: str) -> dict[str, Any]:
    """Runs `tidewire storage restore`; its answer."""
    done = await up.command(
        "storage", "restore", str(place), "--data-dir", str(data_dir), "-o", "json", *options, seconds=90
    )
    answer: dict[str, Any] = done.json()
    assert (answer["difference_readings"], answer["difference_events"]) == (0, 0)
    return answer


async def token_of(up: UpProcess, access: TenantAccess) -> TenantAccess:
    """A new token for a tenant that another platform has made: keys are not in backups."""

    async def make() -> TenantAccess:
        answer = await up.registry().CreateToken(
            registry_pb2.CreateTokenRequest(tenant=access.name, subject="test", roles=["tenant-admin"]),
            metadata=up.admin_metadata(),
            timeout=10,
        )
        return TenantAccess(access.name, access.uid, answer.token)

    return await until(make, "the restored registry makes a token")


async def readings(up: UpProcess, access: TenantAccess) -> Readings:
    """What is visible of all devices."""

    async def read() -> Readings:
        return {device: set(await read_device(up, access, device)) for device in DEVICES}

    return await until(read, "the devices can be read")


async def adds_up(up: UpProcess) -> storage_pb2.GetLedgerResponse:
    ledger = await until(lambda: settled_ledger(up), "the ledger is settled", 60)
    assert ledger.difference_readings == 0
    return ledger


async def test_all_that_was_acknowledged_before_is_restored_and_goes_on(
    data_dir: Path, tmp_path: Path
) -> None:
    place, copy = tmp_path / "place", tmp_path / "copy"
    async with running(data_dir, environ=SOON) as up:
        access = await up.create_tenant("acme")
        await up.create_devices(access, *DEVICES)
        writer = Writer(up, access)
        await writer.write(20)
        async with writer.going_on():
            before = writer.so_far()
            answer = await backup(up, place, data_dir)
        assert answer["unstored_records"] == 0
        await writer.write(1)
        assert writer.acknowledged["pump-1"] > before["pump-1"]
        restored = await restore(up, place, copy)
        assert (restored["tenants"], restored["devices"]) == (1, 3)

    async with running(copy, environ=SOON) as up:
        access = await token_of(up, access)
        found = await readings(up, access)
        for device in DEVICES:
            assert before[device] <= found[device] <= writer.sent[device]
        assert restored["readings"] == sum(map(len, found.values()))
        later = {time.time_ns() // 1000: {"level": 7.5}}
        assert (await publish(up, access, "pump-1", later)).accepted_readings == 1
        wanted = found["pump-1"] | {("level", at, 7.5) for at in later}

        async def visible() -> bool:
            return set(await read_device(up, access, "pump-1")) == wanted

        await until(visible, "what is published after the restore is visible", 30)
        await adds_up(up)


async def test_each_of_a_chain_is_restored_by_itself_and_what_was_deleted_stays_deleted(
    data_dir: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    async with running(data_dir, environ=SOON) as up:
        acme, gone = await up.create_tenant("acme"), await up.create_tenant("gone")
        await up.create_devices(acme, *DEVICES)
        await up.create_devices(gone, "sensor")
        writer = Writer(up, acme)
        await writer.write(30)
        await publish(up, gone, "sensor", {time.time_ns() // 1000 + row: {"level": 1.0} for row in range(8)})
        first = await backup(up, place, data_dir)

        await up.registry().DeleteDevice(
            registry_pb2.DeleteDeviceRequest(name=f"{acme.name}/devices/pump-3"),
            metadata=acme.metadata,
            timeout=10,
        )
        await up.registry().DeleteTenant(
            registry_pb2.DeleteTenantRequest(name=gone.name), metadata=up.admin_metadata(), timeout=10
        )

        async def purged() -> bool:
            ledger = await adds_up(up)
            return sum(entry.purged_readings for entry in ledger.entries) == 30 + 8

        await until(purged, "the device's and the tenant's readings are purged", 60)
        second = await backup(up, place, data_dir)
        for _ in range(10):
            await publish(up, acme, "pump-1", {time.time_ns() // 1000: {"level": 2.0}})
        expected = sorted(await read_device(up, acme, "pump-2"))
        third = await backup(up, place, data_dir)
        assert [one["previous"] for one in (first, second, third)] == ["", first["backup"], second["backup"]]
        assert third["sent_bytes"] < third["bytes"]

        counts = {}
        for answer in (first, second, third):
            one = await restore(up, place, tmp_path / answer["backup"], "--backup", answer["backup"])
            counts[answer["backup"]] = (one["tenants"], one["devices"], one["readings"])
        assert list(counts.values()) == [(2, 4, 98), (1, 2, 60), (1, 2, 70)]

    async with running(tmp_path / third["backup"], environ=SOON) as up:
        acme = await token_of(up, acme)

        async def same() -> bool:
            return sorted(await read_device(up, acme, "pump-2")) == expected

        await until(same, "the device's readings are there")
        assert len(await read_device(up, acme, "pump-1")) == 40
        tenants = await up.registry().ListTenants(
            registry_pb2.ListTenantsRequest(), metadata=up.admin_metadata(), timeout=10
        )
        assert [tenant.name for tenant in tenants.tenants] == [acme.name]
        await adds_up(up)
    async with running(tmp_path / first["backup"], environ=SOON) as up:
        gone = await token_of(up, gone)
        assert len(await until(lambda: read_device(up, gone, "sensor"), "the older one has the tenant")) == 8
        await adds_up(up)


async def test_killed_backups_leave_only_whole_ones(data_dir: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    chance = random.Random(7)
    async with running(data_dir, environ=SOON) as up:
        access = await up.create_tenant("acme")
        await up.create_devices(access, *DEVICES)
        writer = Writer(up, access)
        command = [str(TIDEWIRE), "storage", "backup", str(place), "--data-dir", str(data_dir)]
        started = time.monotonic()
        await writer.write(5)
        await backup(up, place, data_dir)
        took = time.monotonic() - started
        async with writer.going_on():
            for _ in range(8):
                process = start_leashed(
                    command, env=up.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                await asyncio.sleep(chance.uniform(0, 1.2 * took))
                process.send_signal(signal.SIGKILL)
                await asyncio.to_thread(process.wait)
                assert {row["state"] for row in listed(place_at(str(place), {}))} == {"whole"}
        before = writer.so_far()
        await backup(up, place, data_dir)
        assert not (data_dir / "run" / "backup").exists()
        await restore(up, place, tmp_path / "copy")
    async with running(tmp_path / "copy", environ=SOON) as up:
        assert await readings(up, await token_of(up, access)) == before


async def test_a_directory_in_use_or_with_data_is_not_overwritten(data_dir: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    async with running(data_dir, environ=SOON) as up:
        access = await up.create_tenant("acme")
        await up.create_devices(access, *DEVICES)
        writer = Writer(up, access)
        await writer.write(3)
        await backup(up, place, data_dir)
        before = writer.so_far()
        words = ("storage", "restore", str(place), "--data-dir", str(data_dir))
        refused = await up.command(*words)
        assert (refused.status, "holds data" in refused.err) == (4, True)
        refused = await up.command(*words, "--replace")
        assert (refused.status, "is in use by `tidewire up`" in refused.err) == (4, True)
        await writer.write(2)
        await wait_visible(
            up, access, "pump-1", {at: {metric: value} for metric, at, value in writer.acknowledged["pump-1"]}
        )
    assert (await up.command(*words)).status == 4
    assert (await up.command(*words, "--replace")).status == 0
    async with running(data_dir, environ=SOON) as up:  # the keys have stayed, so the token holds
        assert await readings(up, access) == before
        await adds_up(up)


@pytest.mark.servers
async def test_a_bucket_is_a_place_like_a_directory(
    data_dir: Path, tmp_path: Path, s3_server: S3Server
) -> None:
    s3_server.make_bucket("backups")
    place = "s3://backups/of/acme"
    async with running(data_dir, environ=SOON | s3_server.environ()) as up:
        access = await up.create_tenant("acme")
        await up.create_devices(access, *DEVICES)
        writer = Writer(up, access)
        await writer.write(5)
        first = await backup(up, place, data_dir)
        await writer.write(5)
        async with writer.going_on():
            before = writer.so_far()
            second = await backup(up, place, data_dir)
        assert second["previous"] == first["backup"]
        shown = await up.command("storage", "backups", place, "-o", "json")
        assert [row["state"] for row in shown.json()] == ["whole", "whole"]
        await restore(up, place, tmp_path / "copy")
        (victim, *_) = sorted((s3_server.data / "backups/of/acme/objects").glob("*/*"))
        victim.unlink()
        shown = await up.command("storage", "backups", place, "-o", "json")
        assert (shown.status, "missing" in shown.out) == (1, True)
        for words in (("backup", place, "--data-dir", str(data_dir)), ("backups", place)):
            wrong = await asyncio.to_thread(
                subprocess.run,
                [str(TIDEWIRE), "storage", *words],
                env=up.environ | {"AWS_SECRET_ACCESS_KEY": "not-the-secret"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (wrong.returncode, "SignatureDoesNotMatch" in wrong.stderr) == (3, True)
            assert SECRET_KEY not in wrong.stderr
    async with running(tmp_path / "copy", environ=SOON) as up:
        found = await readings(up, await token_of(up, access))
        for device in DEVICES:
            assert before[device] <= found[device] <= writer.sent[device]
