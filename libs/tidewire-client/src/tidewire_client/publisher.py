"""Publishes telemetry: gathers readings into batches by size and time, and hands them to the sender.

`AsyncTelemetryPublisher` is for users and gateways, who name devices; `AsyncDevicePublisher` for one device with its
own key. Blocking twins are in `tidewire_client.blocking`.
"""

import asyncio
import itertools
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from tidewire_client.connect import AsyncConnection
from tidewire_client.encoding import MAX_MESSAGE_BYTES, EncodedBatch, encode_batch, row_bytes
from tidewire_client.errors import BufferFull, InvalidArgument, TidewireError
from tidewire_client.gather import Columns, Gatherer
from tidewire_client.results import BatchResult, Refusal, Totals
from tidewire_client.sender import Sender
from tidewire_client.times import Moment, now_us, to_unix_us
from tidewire_client.tokens import DeviceKey

if TYPE_CHECKING:
    from tidewire_client.keys import PrivateKey

log = logging.getLogger("tidewire_client")
_SPARE_BYTES = 200_000  # for names of devices and metrics


def log_refusal(refusal: Refusal) -> None:
    """What happens to a refusal when nobody asked for it: it is logged as a warning."""
    log.warning("%d readings refused: %s: %s", refusal.readings, refusal.reason, refusal.message)


class AsyncTelemetryPublisher:
    """Publishes readings, batched, retried with the same batch id, in order, through restarts of the platform.

    Use it as `async with`; leaving flushes. Belongs to one event loop.

    Args:
        connection: the connection; it is not closed by the publisher.
        device: device of readings that name none.
        batch_readings: readings at which a batch is sent.
        linger_seconds: how long a batch waits for more before it is sent all the same.
        window: batches on their way at once. 1 keeps strict order even when the platform refuses a batch for now.
        buffer_readings: readings without an acknowledgement held at most; then adding waits.
        when_full: `raise` to get BufferFull instead of waiting.
        streaming: False for a unary call a batch; slower, and passes proxies that know no streams.
        retry_seconds: how long to go on trying without any success; None: for ever.
        acknowledge_seconds: when a stream without acknowledgement is taken for dead.
        count: number batches, so that the platform reports lost ones. Off when several publishers share one identity.
        on_result: called with each batch's outcome.
        on_refusal: called with each refused part of a batch; by default it is logged.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        *,
        device: str = "",
        batch_readings: int = 10_000,
        linger_seconds: float = 0.05,
        window: int = 16,
        buffer_readings: int = 2_000_000,
        when_full: Literal["wait", "raise"] = "wait",
        streaming: bool = True,
        retry_seconds: float | None = None,
        acknowledge_seconds: float = 30.0,
        count: bool = True,
        on_result: Callable[[BatchResult], None] | None = None,
        on_refusal: Callable[[Refusal], None] | None = log_refusal,
    ) -> None:
        if batch_readings < 1 or window < 1 or buffer_readings < 1 or linger_seconds < 0:
            raise InvalidArgument("batch_readings, window and buffer_readings must be at least 1")
        self.connection = connection
        self.device = device
        self.totals = Totals()
        self.gatherer = Gatherer(batch_readings, MAX_MESSAGE_BYTES - _SPARE_BYTES)
        self._linger_seconds = linger_seconds
        self._raise_when_full = when_full == "raise"
        self._sequence = itertools.count(1) if count else itertools.repeat(0)
        self._on_result = on_result
        self._on_refusal = on_refusal
        self._ship_lock = asyncio.Lock()
        self._given_back: EncodedBatch | None = None
        """Taken from the gatherer by somebody who then did not wait until the sender had room; goes first."""
        self._linger: asyncio.TimerHandle | None = None
        self._lingering: set[asyncio.Task[None]] = set()
        self._sender = Sender(
            connection,
            window=window,
            buffer_readings=buffer_readings,
            streaming=streaming,
            retry_seconds=retry_seconds,
            acknowledge_seconds=acknowledge_seconds,
            on_outcome=self._outcome,
        )

    async def start(self) -> None:
        """Begins to send; `async with` calls it."""
        self._sender.start()

    @property
    def pending_readings(self) -> int:
        """Readings that have no acknowledgement yet."""
        given_back = self._given_back.readings if self._given_back is not None else 0
        return self._sender.held_readings + given_back + self.gatherer.cells

    @property
    def trouble(self) -> TidewireError | None:
        """The last thing that went wrong on the way, for a status line; it may be over."""
        return self._sender.last_trouble

    async def add(self, device: str, time: Moment | None, values: Mapping[str, float]) -> None:
        """Adds the values of one device at one moment.

        Args:
            device: device id; "" for the publisher's own.
            time: when; None: now.
            values: metric → value; at least one.

        Raises InvalidArgument, BufferFull when so asked, or what made the publisher give up.
        """
        if self.put_row(device, time, values):
            self.arm_linger()
        if self.gatherer.full:
            await self.ship()

    def put_row(self, device: str, time: Moment | None, values: Mapping[str, float]) -> bool:
        """`add` without the sending, from any thread. Returns whether the linger time starts now."""
        device = device or self.device
        if not device or not values:
            raise InvalidArgument(
                "the device is missing; name one" if values else f"device {device}: there are no values",
                field="values" if device else "device",
            )
        self._check_room(len(values))
        return self.gatherer.add_row(device, now_us() if time is None else to_unix_us(time), values)

    def _check_room(self, readings: int) -> None:
        if self._sender.error is not None:
            raise self._sender.error
        if self._raise_when_full and not self._sender.has_room(self.gatherer.cells + readings):
            raise BufferFull(
                f"{self.pending_readings:,} readings wait for the platform, and buffer_readings allows no more"
            )

    async def add_columns(
        self,
        devices: str | Sequence[str],
        time_unix_us: ArrayLike,
        metrics: Sequence[str],
        values: ArrayLike,
        *,
        device_index: ArrayLike | None = None,
    ) -> None:
        """Adds a table without looping over it.

        Args:
            devices: one id for all rows; or one id a row; or, with `device_index`, a table of ids.
            time_unix_us: int64 (rows,) microseconds since 1970, or datetime64.
            metrics: names of the columns.
            values: float64 (metrics, rows); NaN: no reading in that cell. One metric may come as (rows,).
            device_index: row → position in `devices`, (rows,).

        Large tables are cut into batches, small ones share batches. Raises as `add`.
        """
        columns = Columns(devices or self.device, time_unix_us, metrics, values, device_index)
        if not columns.rows or not columns.metrics:
            return
        self._check_room(columns.values.size)
        limit = self.rows_in_batch(len(columns.metrics), columns.devices)
        if columns.rows < limit:
            if not self.gatherer.has_room_for(columns):
                await self.ship()
            if self.gatherer.add_columns(columns):
                self.arm_linger()
            if self.gatherer.full:
                await self.ship()
            return
        async with self._ship_lock:
            await self._ship_gathered()
            for start in range(0, columns.rows, limit):
                await self._sender.enqueue(self._encode_slice(columns, start, start + limit))

    def rows_in_batch(self, metrics: int, devices: Sequence[str] = ()) -> int:
        """Rows of so many metrics that make a full batch."""
        names = sum(map(len, devices)) + 3 * len(devices)
        room = self.gatherer.max_bytes - min(names, self.gatherer.max_bytes // 2)
        return max(1, min(self.gatherer.max_readings // metrics, room // row_bytes(metrics)))

    def _encode_slice(
        self,
        columns: Columns,
        start: int,
        stop: int,
        batch_id: uuid.UUID | None = None,
        tag: object = None,
    ) -> EncodedBatch:
        frame = columns.slice(start, stop)
        devices: Sequence[str] = columns.devices
        if frame.device_index is not None and len(devices) > 1:
            used, index = np.unique(frame.device_index, return_inverse=True)
            if len(used) < len(devices):  # of a large table a batch names only the devices in it
                devices = [devices[i] for i in used.tolist()]
                frame = type(frame)(
                    frame.metrics, index.reshape(-1).astype(np.uint32), frame.time_unix_us, frame.values
                )
        return encode_batch(batch_id or uuid.uuid4(), next(self._sequence), devices, [frame], tag)

    async def send_columns(
        self,
        devices: str | Sequence[str],
        time_unix_us: ArrayLike,
        metrics: Sequence[str],
        values: ArrayLike,
        *,
        device_index: ArrayLike | None = None,
        batch_id: uuid.UUID | None = None,
        tag: object = None,
    ) -> asyncio.Future[BatchResult]:
        """Sends a table as exactly one batch, after what was added before; arguments as `add_columns`.

        Args:
            batch_id: idempotency key; the same table under the same id is visible once.
            tag: found again in the outcome's `batch.tag`.

        Returns at once when the buffer has room; the future gives the outcome and never raises. Raises InvalidArgument
        when the table is too large for one message; see `rows_in_batch`.
        """
        columns = Columns(devices or self.device, time_unix_us, metrics, values, device_index)
        self._check_room(columns.values.size)
        async with self._ship_lock:
            await self._ship_gathered()
            return await self._sender.enqueue(self._encode_slice(columns, 0, columns.rows, batch_id, tag))

    def arm_linger(self) -> None:
        """Starts the linger time of the open batch. On the loop."""
        if self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(self._linger_seconds, self._lingered)

    def _lingered(self) -> None:
        self._linger = None
        task = asyncio.create_task(self._ship_quietly())
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    async def _ship_quietly(self) -> None:
        try:
            await self.ship()
        except TidewireError as error:  # the next `add` or `flush` raises it
            log.debug("could not send: %s", error)

    async def ship(self) -> None:
        """Hands the open batch to the sender; waits while the buffer is full."""
        async with self._ship_lock:
            await self._ship_gathered()

    async def _ship_gathered(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._given_back is not None:
            await self._hand_over(self._given_back)
        taken = self.gatherer.take()
        if taken is not None:
            await self._hand_over(encode_batch(uuid.uuid4(), next(self._sequence), *taken))

    async def _hand_over(self, batch: EncodedBatch) -> None:
        self._given_back = None
        try:
            await self._sender.enqueue(batch)
        except asyncio.CancelledError:
            # Who waits for room here may give up, but the batch holds what others have added.
            self._given_back = batch
            self.arm_linger()
            raise

    def _outcome(self, result: BatchResult) -> None:
        self.totals.add(result)
        try:
            if self._on_result is not None:
                self._on_result(result)
            elif result.error is not None:
                log.error("a batch of %d readings was not taken: %s", result.batch.readings, result.error)
            if self._on_refusal is not None:
                for refusal in result.refusals:
                    self._on_refusal(refusal)
        except Exception:
            log.exception("a callback of the publisher failed")

    async def flush(self) -> Totals:
        """Sends everything and waits for the outcomes. Returns the totals. Raises what made the publisher give up."""
        await self.ship()
        await self._sender.drain()
        return self.totals

    async def close(self, *, flush: bool = True) -> None:
        """Flushes, unless told not to, and stops."""
        try:
            if flush:
                await self.flush()
        finally:
            if self._linger is not None:
                self._linger.cancel()
            await self._sender.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        await self.close(flush=kind is None)


class AsyncDevicePublisher:
    """Publishes as a device (or as a gateway, for its devices) with the device's own private key.

    Args:
        endpoint: the registry's address.
        device: its device id.
        credential: id of the credential under which its public key is registered.
        key: private key, or the PEM file that holds it.
        ca_file: PEM file of the certificate authorities to trust.
        addresses: `{service: host:port}` to use instead of what the registry says.
        options: as AsyncTelemetryPublisher takes them.
    """

    def __init__(
        self,
        endpoint: str,
        device: str,
        credential: str,
        key: "PrivateKey | str | os.PathLike[str]",
        *,
        ca_file: str | os.PathLike[str] | None = None,
        addresses: Mapping[str, str] | None = None,
        **options: object,
    ) -> None:
        identity = DeviceKey(device, credential, key)
        self.connection = AsyncConnection(endpoint, token=identity, ca_file=ca_file, addresses=addresses)
        self.publisher = AsyncTelemetryPublisher(
            self.connection,
            device=identity.device,
            **options,  # type: ignore[arg-type]  # checked by the publisher's own signature when called
        )

    async def add(self, time: Moment | None, values: Mapping[str, float], *, device: str = "") -> None:
        """Adds values at one moment (None: now), of itself or of a device it publishes for."""
        await self.publisher.add(device, time, values)

    async def add_columns(
        self, time_unix_us: ArrayLike, metrics: Sequence[str], values: ArrayLike, *, device: str = ""
    ) -> None:
        """Adds a table of readings; see AsyncTelemetryPublisher.add_columns."""
        await self.publisher.add_columns(device, time_unix_us, metrics, values)

    @property
    def totals(self) -> Totals:
        """Running counts."""
        return self.publisher.totals

    async def flush(self) -> Totals:
        """Sends everything and waits for the outcomes."""
        return await self.publisher.flush()

    async def close(self, *, flush: bool = True) -> None:
        """Flushes and closes the connection."""
        try:
            await self.publisher.close(flush=flush)
        finally:
            await self.connection.close()

    async def __aenter__(self) -> Self:
        await self.publisher.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        await self.close(flush=kind is None)
