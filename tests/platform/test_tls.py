"""With a certificate everything speaks TLS: services among themselves, the command by its context, the demo."""

from pathlib import Path

import grpc
import grpc.aio
import pytest

from tidewire.registry.v1 import registry_pb2, registry_pb2_grpc
from tidewire_testkit.certificates import Authority
from tidewire_testkit.whole.platform import UpProcess

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]


async def test_the_demo_and_the_command_speak_tls_and_plain_text_is_not_heard(tmp_path: Path) -> None:
    authority = Authority("test")
    certificate, key = authority.issue(tmp_path, "tidewire")
    environ = {
        "TIDEWIRE_TLS_CERT_FILE": str(certificate),
        "TIDEWIRE_TLS_KEY_FILE": str(key),
        "TIDEWIRE_TLS_CA_FILE": str(authority.write(tmp_path)),
    }
    up = UpProcess(tmp_path / "data", environ=environ)
    up.start()
    try:
        await up.wait_announced()
        status = await up.command("status", "--context", "local")
        assert status.status == 0, status.err
        demo = await up.command("demo", "--data-dir", str(up.data_dir), "--seconds", "2", seconds=60)
        assert demo.status == 0, demo.out + demo.err
        latest = await up.command("query", "meter-001", "--context", "demo", "--output", "json")
        assert latest.json()
        async with grpc.aio.insecure_channel(up.address("registry")) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListTenants(
                    registry_pb2.ListTenantsRequest(), metadata=up.admin_metadata(), timeout=5
                )
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        assert await up.stop() == 0
    assert up.logged_errors() == []
