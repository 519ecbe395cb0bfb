"""What the registry's tests share: objects to keep, stores to keep them in, and a whole registry over a real log."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from tidewire.events.v1.registry_change_pb2 import RegistryChange
from tidewire.registry.v1 import registry_pb2 as pb
from tidewire.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tidewire_kit.cassandra import CassandraSession, CassandraSettings
from tidewire_kit.datadir import open_data_dir
from tidewire_kit.ids import TenantId, Uid, new_uid
from tidewire_kit.log.embedded import EmbeddedLog
from tidewire_kit.log.port import MessageLog
from tidewire_kit.service import RunningService, running_service
from tidewire_kit.settings import CommonSettings
from tidewire_kit.topics import REGISTRY
from tidewire_registry.adapters.cassandra import CassandraStore
from tidewire_registry.adapters.cassandra.schema import SCHEMA
from tidewire_registry.adapters.embedded import EmbeddedStore
from tidewire_registry.bootstrap import bootstrap
from tidewire_registry.domain.devices import Device, DeviceDraft, created
from tidewire_registry.domain.tenants import Quotas, Retention, Tenant, TenantState
from tidewire_registry.main import build
from tidewire_registry.ports import RegistryStore, WriteSet
from tidewire_registry.settings import Settings
from tidewire_testkit.cassandra import connected, fresh_keyspace, tables

AnyStore = EmbeddedStore | CassandraStore
NOW_US = 1_700_000_000_000_000


@dataclass
class Builders:
    """Makes objects; everything not given is plain."""

    def tenant(self, id_: str = "acme", uid: TenantId | None = None) -> Tenant:
        uid = uid or TenantId(new_uid())
        return Tenant(uid, id_, "", TenantState.ACTIVE, Quotas(), Retention(), {}, NOW_US, NOW_US, 1)

    def device(self, tenant: TenantId, id_: str, parent: Device | None = None, **fields: Any) -> Device:
        draft = DeviceDraft(id_, parent_id=parent.id if parent else "", **fields)
        ancestors: tuple[Uid, ...] = (parent.uid, *parent.ancestors) if parent else ()
        return created(draft, tenant, new_uid(), ancestors, NOW_US)

    async def stored_tenant(self, store: RegistryStore, id_: str = "acme") -> TenantId:
        tenant = self.tenant(id_)
        await store.commit(tenant.uid, WriteSet(puts=[tenant]))
        return tenant.uid


@pytest.fixture
def make() -> Builders:
    return Builders()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Does not count the making of tables as a test's time: a busy node takes a minute for it."""
    for item in items:
        ours = Path(__file__).parent in item.path.parents and item.get_closest_marker("servers")
        if ours and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(float(item.config.getini("timeout")), func_only=True))


CASSANDRA = pytest.param("cassandra", marks=pytest.mark.servers)


@pytest.fixture(scope="session")
def shared_keyspace(cassandra_contact_points: str) -> Iterator[CassandraSettings]:
    with fresh_keyspace(cassandra_contact_points, [SCHEMA]) as settings:
        yield settings


async def _empty(session: CassandraSession, table: str) -> None:
    """Deletes what is there, which takes milliseconds; TRUNCATE of a table takes a hundred."""
    if not table.startswith("registry_"):
        return
    columns = await session.prepare(
        "SELECT column_name, kind, position FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?"
    )
    found = await session.execute(columns, (session.keyspace, table))
    keys = sorted((row.position, row.column_name) for row in found if row.kind == "partition_key")
    names = [name for _, name in keys]
    select = await session.prepare(f"SELECT DISTINCT {', '.join(names)} FROM {table}")
    where = " AND ".join(f"{name} = ?" for name in names)
    delete = await session.prepare(f"DELETE FROM {table} USING TIMESTAMP ? WHERE {where}")
    later_us = time.time_ns() // 1_000 + 1
    await session.execute_all(delete, [(later_us, *row) for row in await session.execute(select)])


@pytest.fixture
async def cassandra(shared_keyspace: CassandraSettings) -> CassandraSettings:
    """An empty keyspace with the registry's tables."""
    async with connected(shared_keyspace) as session:
        await asyncio.gather(*(_empty(session, table) for table in await tables(session, session.keyspace)))
    return shared_keyspace


@pytest.fixture(params=["embedded", CASSANDRA])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], AnyStore]:
    """Makes stores of each adapter; a new one joins by its name."""
    if request.param == "embedded":
        return lambda: EmbeddedStore(tmp_path / "registry")
    settings = request.getfixturevalue("cassandra")
    return lambda: CassandraStore(settings)


@pytest.fixture
async def store(new_store: Callable[[], AnyStore]) -> AsyncIterator[RegistryStore]:
    made = new_store()
    await made.start()
    yield made
    await made.close()


class Client:
    """A caller with a token. A failed call raises `Refused` with what its status says."""

    def __init__(self, address: str, token: str) -> None:
        self._channel = aio.insecure_channel(address)
        self._stub = RegistryServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def __call__(self, request: Message) -> Any:
        """Calls the RPC whose request this is."""
        method = getattr(self._stub, request.DESCRIPTOR.name.removesuffix("Request"))
        try:
            return await method(request, metadata=self._metadata, timeout=20)
        except aio.AioRpcError as error:
            raise Refused(error) from None

    async def refuses(
        self, request: Message, code: grpc.StatusCode, reason: str = "", field: str = ""
    ) -> str:
        """Checks that a call is refused so; returns the text that the caller is told."""
        with pytest.raises(Refused) as caught:
            await self(request)
        refusal = caught.value
        assert refusal.code is code, refusal
        assert not reason or refusal.reason == reason, refusal
        assert not field or refusal.field == field, refusal
        return refusal.text

    async def close(self) -> None:
        await self._channel.close()


class Refused(Exception):
    """A call's status other than OK."""

    def __init__(self, error: aio.AioRpcError) -> None:
        self.code: grpc.StatusCode = error.code()
        self.text = error.details() or ""
        self.reason, self.field = "", ""
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                for detail in status_pb2.Status.FromString(value).details:  # type: ignore[arg-type]
                    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
                    if detail.Unpack(info):
                        self.reason = info.reason
                    elif detail.Unpack(bad):
                        self.field = bad.field_violations[0].field
        super().__init__(f"{self.code.name} {self.reason} {self.text}")


@dataclass
class Platform:
    """A registry that serves, over a real log in a directory of its own."""

    root: Path
    service: RunningService
    log: MessageLog
    clients: list[Client] = field(default_factory=list)

    def client(self, token: str) -> Client:
        self.clients.append(Client(self.service.address, token))
        return self.clients[-1]

    @property
    def admin(self) -> Client:
        return self.client((self.root / "keys" / "admin.token").read_text().strip())

    @property
    def peer(self) -> Client:
        """Another service."""
        return self.client((self.root / "keys" / "service.token").read_text().strip())

    async def member(self, tenant_id: str, *roles: str) -> Client:
        request = pb.CreateTokenRequest(tenant=f"tenants/{tenant_id}", subject="somebody", roles=roles)
        return self.client((await self.admin(request)).token)

    async def topic(self) -> dict[str, RegistryChange]:
        """What is on the registry topic now, by key."""
        table = self.log.table(REGISTRY)
        found: dict[str, RegistryChange] = {}
        async for items in table:
            if not items:
                break
            for key, value in items:
                assert value is not None
                found[key.decode()] = RegistryChange.FromString(value)
        await table.close()
        return found


Starter = Callable[..., contextlib.AbstractAsyncContextManager[Platform]]


@pytest.fixture(params=["embedded", CASSANDRA])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Starter:
    """Starts a registry; again on the same data when called again. `wrap` may put something in front of its log; with
    `beside` it is one more process of a platform that runs (on Cassandra)."""
    cassandra: CassandraSettings | None = None
    if request.param != "embedded":
        cassandra = request.getfixturevalue("cassandra")

    @contextlib.asynccontextmanager
    async def run(
        wrap: Callable[[MessageLog], MessageLog] | None = None,
        sweep_seconds: float = 0.2,
        beside: Platform | None = None,
    ) -> AsyncIterator[Platform]:
        root = tmp_path / "data"
        open_data_dir(root)
        log = EmbeddedLog(root) if beside is None else beside.log
        if beside is None:
            await log.start()
        settings = Settings(port=0, metrics_port=0, sweep_seconds=sweep_seconds)
        common, environ = CommonSettings(data_dir=root), dict[str, str]()
        if cassandra is not None:
            key_file = bootstrap(root).signing_key_file
            common = replace(common, backend="distributed", signing_key_file=key_file)
            environ = {
                "TIDEWIRE_CASSANDRA_CONTACT_POINTS": cassandra.contact_points,
                "TIDEWIRE_CASSANDRA_KEYSPACE": cassandra.keyspace,
            }
        try:
            seen: MessageLog = wrap(log) if wrap else log
            async with running_service(
                "registry", settings, common, build, log=seen, environ=environ
            ) as service:
                platform = Platform(root, service, log)
                yield platform
                for client in platform.clients:
                    await client.close()
        finally:
            if beside is None:
                await log.close()

    return run


@pytest.fixture
async def platform(start: Starter) -> AsyncIterator[Platform]:
    async with start() as running:
        yield running
