"""The same clients for programs without an event loop: each call blocks until it is done.

One background thread runs the event loop of all blocking connections. A method here is the asynchronous one of the same
name, its arguments and documentation included; only what is an iterator there is a list here.
"""

import asyncio
import atexit
import functools
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Self, cast

from numpy.typing import ArrayLike

from tidewire_client.admin import AsyncAdminClient
from tidewire_client.connect import DEFAULT_ENDPOINT, AsyncConnection
from tidewire_client.events import AsyncEventClient
from tidewire_client.publisher import AsyncTelemetryPublisher
from tidewire_client.query import AsyncQueryClient
from tidewire_client.results import Totals
from tidewire_client.times import Moment
from tidewire_client.tokens import DeviceKey, TokenSource

if TYPE_CHECKING:
    from tidewire_client.keys import PrivateKey


class _Loop:
    """An event loop in a daemon thread, started when first used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="tidewire-client", daemon=True
                )
                self._thread.start()
                atexit.register(self.stop)
            return self._loop

    def run[Result](self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Runs it there and waits. An interruption of the wait (Ctrl-C) cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.get())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Ends the thread; a later use starts another."""
        with self._lock:
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=5)
            if not thread.is_alive():
                loop.close()


LOOP = _Loop()


def _blocking[Client, **P, Result](
    method: Callable[Concatenate[Client, P], Awaitable[Result]],
) -> Callable[Concatenate[Any, P], Result]:
    """A method that calls the asynchronous one on `self.inner` and waits."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return LOOP.run(cast("Coroutine[Any, Any, Result]", method(self.inner, *args, **kwargs)))

    functools.update_wrapper(call, method)
    return call


def _listing[Client, **P, Item](
    method: Callable[Concatenate[Client, P], AsyncIterator[Item]],
) -> Callable[Concatenate[Any, P], list[Item]]:
    """A method that gathers what the asynchronous iterator on `self.inner` yields."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> list[Item]:
        async def gather() -> list[Item]:
            return [item async for item in method(self.inner, *args, **kwargs)]

        return LOOP.run(gather())

    functools.update_wrapper(call, method)
    return call


class Connection:
    """A connection for blocking clients; arguments as AsyncConnection. Use it as `with`, or close it."""

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        *,
        token: str | TokenSource | None = None,
        tenant: str = "",
        ca_file: str | os.PathLike[str] | None = None,
        timeout_seconds: float = 30.0,
        retry_seconds: float = 10.0,
        addresses: Mapping[str, str] | None = None,
    ) -> None:
        self.inner = AsyncConnection(
            endpoint,
            token=token,
            tenant=tenant,
            ca_file=ca_file,
            timeout_seconds=timeout_seconds,
            retry_seconds=retry_seconds,
            addresses=addresses,
        )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Self:
        """A connection from TIDEWIRE_ENDPOINT, _TOKEN or _TOKEN_FILE, _TENANT and _CA_FILE."""
        connection = cls.__new__(cls)
        connection.inner = AsyncConnection.from_environ(environ)
        return connection

    tenant = _blocking(AsyncConnection.tenant)
    services = _blocking(AsyncConnection.services)
    close = _blocking(AsyncConnection.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AdminClient:
    """Manages tenants, devices, credentials and tokens; see AsyncAdminClient."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.inner = AsyncAdminClient(connection.inner)

    create_tenant = _blocking(AsyncAdminClient.create_tenant)
    get_tenant = _blocking(AsyncAdminClient.get_tenant)
    list_tenants = _listing(AsyncAdminClient.list_tenants)
    update_tenant = _blocking(AsyncAdminClient.update_tenant)
    delete_tenant = _blocking(AsyncAdminClient.delete_tenant)
    block_tenant = _blocking(AsyncAdminClient.block_tenant)
    unblock_tenant = _blocking(AsyncAdminClient.unblock_tenant)
    get_tenant_usage = _blocking(AsyncAdminClient.get_tenant_usage)
    create_device = _blocking(AsyncAdminClient.create_device)
    batch_create_devices = _blocking(AsyncAdminClient.batch_create_devices)
    get_device = _blocking(AsyncAdminClient.get_device)
    list_devices = _listing(AsyncAdminClient.list_devices)
    count_devices = _blocking(AsyncAdminClient.count_devices)
    update_device = _blocking(AsyncAdminClient.update_device)
    delete_device = _blocking(AsyncAdminClient.delete_device)
    block_device = _blocking(AsyncAdminClient.block_device)
    unblock_device = _blocking(AsyncAdminClient.unblock_device)
    create_credential = _blocking(AsyncAdminClient.create_credential)
    list_credentials = _listing(AsyncAdminClient.list_credentials)
    delete_credential = _blocking(AsyncAdminClient.delete_credential)
    create_token = _blocking(AsyncAdminClient.create_token)
    get_endpoints = _blocking(AsyncAdminClient.get_endpoints)
    ensure_devices = _blocking(AsyncAdminClient.ensure_devices)
    ensure_tenant = _blocking(AsyncAdminClient.ensure_tenant)


class QueryClient:
    """Reads newest values, series, columns, aggregates and the ledger; see AsyncQueryClient."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.inner = AsyncQueryClient(connection.inner)

    latest = _blocking(AsyncQueryClient.latest)
    series = _blocking(AsyncQueryClient.series)
    read_series = _blocking(AsyncQueryClient.read_series)
    aggregate = _blocking(AsyncQueryClient.aggregate)
    sql = _blocking(AsyncQueryClient.sql)
    report = _blocking(AsyncQueryClient.report)
    ledger = _blocking(AsyncQueryClient.ledger)
    storage_usage = _blocking(AsyncQueryClient.storage_usage)
    seal_epochs = _blocking(AsyncQueryClient.seal_epochs)


class EventClient:
    """Publishes and lists events; see AsyncEventClient."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.inner = AsyncEventClient(connection.inner)

    publish = _blocking(AsyncEventClient.publish)
    list = _blocking(AsyncEventClient.list)


class TelemetryPublisher:
    """Publishes readings in the background; see AsyncTelemetryPublisher, whose options it takes.

    Its methods may be called from several threads. Callbacks run on the background thread and must not block.
    """

    def __init__(self, connection: Connection, **options: Any) -> None:
        self.connection = connection

        async def make() -> AsyncTelemetryPublisher:
            publisher = AsyncTelemetryPublisher(connection.inner, **options)
            await publisher.start()
            return publisher

        self.inner = LOOP.run(make())

    def add(self, device: str, time: Moment | None, values: Mapping[str, float]) -> None:
        """Adds the values of one device at one moment (None: now); blocks only while the buffer is full."""
        if self.inner.put_row(device, time, values):
            LOOP.get().call_soon_threadsafe(self.inner.arm_linger)
        if self.inner.gatherer.full:
            LOOP.run(self.inner.ship())

    add_columns = _blocking(AsyncTelemetryPublisher.add_columns)
    flush = _blocking(AsyncTelemetryPublisher.flush)
    close = _blocking(AsyncTelemetryPublisher.close)

    @property
    def totals(self) -> Totals:
        """Running counts."""
        return self.inner.totals

    @property
    def pending_readings(self) -> int:
        """Readings that have no acknowledgement yet."""
        return self.inner.pending_readings

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self.close(flush=kind is None)


class DevicePublisher:
    """Publishes as one device with its own private key; see AsyncDevicePublisher."""

    def __init__(
        self,
        endpoint: str,
        device: str,
        credential: str,
        key: "PrivateKey | str | os.PathLike[str]",
        *,
        ca_file: str | os.PathLike[str] | None = None,
        addresses: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        identity = DeviceKey(device, credential, key)
        self.connection = Connection(endpoint, token=identity, ca_file=ca_file, addresses=addresses)
        self.publisher = TelemetryPublisher(self.connection, device=identity.device, **options)

    def add(self, time: Moment | None, values: Mapping[str, float], *, device: str = "") -> None:
        """Adds values at one moment (None: now), of itself or of a device it publishes for."""
        self.publisher.add(device, time, values)

    def add_columns(
        self, time_unix_us: ArrayLike, metrics: Sequence[str], values: ArrayLike, *, device: str = ""
    ) -> None:
        """Adds a table of readings; see AsyncTelemetryPublisher.add_columns."""
        self.publisher.add_columns(device, time_unix_us, metrics, values)

    @property
    def totals(self) -> Totals:
        """Running counts."""
        return self.publisher.totals

    def flush(self) -> Totals:
        """Sends everything and waits for the outcomes."""
        return self.publisher.flush()

    def close(self, *, flush: bool = True) -> None:
        """Flushes and closes the connection."""
        try:
            self.publisher.close(flush=flush)
        finally:
            self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self.close(flush=kind is None)
