"""The use case: takes a batch in, and tells what became of it once that is durable.

Every front end (gRPC now, HTTP and MQTT later) decodes a batch, calls this, and renders the outcome. None of them knows
of quotas, partitions or the log.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tidewire_ingestion.application.admission import Admission, admit, device_codes
from tidewire_ingestion.application.resolution import Resolution
from tidewire_ingestion.application.sequences import Sequences
from tidewire_ingestion.application.tenants import Tenants
from tidewire_ingestion.domain import Outcome
from tidewire_ingestion.ports import Observer
from tidewire_kit.clock import Clock
from tidewire_kit.directory import Directory, TenantView
from tidewire_kit.errors import InvalidArgument, TidewireError, Unauthenticated
from tidewire_kit.identity import Caller
from tidewire_kit.ids import TenantId
from tidewire_kit.telemetry.admitted import Admitted, Source
from tidewire_kit.telemetry.batch import Batch


class Producer(Protocol):
    """The coalescing producer, as this use case sees it."""

    def publish(self, tenant: TenantId, frames: Sequence[Admitted]) -> asyncio.Future[None]:
        """See `tidewire_kit.telemetry.producer.TelemetryProducer.publish`."""

    def submit(
        self,
        tenant: TenantId,
        size: int,
        prepare: Callable[[], Sequence[Admitted]],
        done: Callable[[Exception | None], None],
    ) -> None:
        """See `tidewire_kit.telemetry.producer.TelemetryProducer.submit`."""


@dataclass(slots=True)
class Pending:
    """A batch that was decided on and is not yet durable."""

    tenant: TenantId
    outcome: Outcome
    durable: asyncio.Future[None] | None
    """None: nothing was admitted, so there is nothing to wait for."""


class PublishTelemetry:
    """Use from one event loop."""

    def __init__(
        self,
        directory: Directory,
        producer: Producer,
        resolution: Resolution,
        clock: Clock,
        observer: Observer,
        tenants: Tenants | None = None,
    ) -> None:
        self._directory = directory
        self._producer = producer
        self._resolution = resolution
        self._clock = clock
        self._observer = observer
        self._tenants = tenants or Tenants()
        self._sequences = Sequences()

    def publish(
        self, tenant: TenantId, caller: Caller, size: int, decode: Callable[[], Batch]
    ) -> asyncio.Future[Outcome]:
        """Takes a request of about `size` bytes; the outcome comes when all its admitted rows are durable.

        It is decoded and decided on when the producer puts together its next commit, right after its neighbours.
        Errors as `begin`, `settle` and `decode`; those of the producer's bounds are raised here, others by the future.
        """
        deferred = _Deferred(self, tenant, caller, decode)
        try:
            self._producer.submit(tenant, size, deferred.prepare, deferred.done)
        except TidewireError as error:
            self.count_failure(tenant, error)
            raise
        return deferred.future

    async def begin(self, tenant: TenantId, caller: Caller, batch: Batch) -> Pending:
        """Decides on the batch and gives its admitted rows to the producer, in the order of the calls.

        Suspends only to ask the registry for devices not seen before. Raises InvalidArgument, Unauthenticated (the
        tenant is blocked), Unavailable (stale directory, registry, stopping) and QuotaExceeded (OVERLOADED); then
        nothing was taken.
        """
        received_us = self._clock.now_us()
        try:
            admission = self.decide(tenant, caller, batch, received_us)
            if admission is None:
                admission = await self._resolve_and_decide(tenant, caller, batch, received_us)
            durable: asyncio.Future[None] | None = None
            if admission.admitted:
                try:
                    durable = self._producer.publish(tenant, admission.admitted)
                except TidewireError:
                    admission.state.readings.put_back(admission.outcome.accepted_readings)
                    raise
        except TidewireError as error:
            self.count_failure(tenant, error)
            raise
        return Pending(tenant, admission.outcome, durable)

    async def settle(self, pending: Pending) -> Outcome:
        """Returns the outcome once it holds. Raises what the log raised; then the batch is to be sent again."""
        outcome = pending.outcome
        if pending.durable is not None:
            try:
                await pending.durable
            except TidewireError as error:
                self._observer.failed(pending.tenant, error.reason)
                raise
        self.count(pending.tenant, outcome)
        return outcome

    def count(self, tenant: TenantId, outcome: Outcome) -> None:
        """Tells the observer of an outcome that holds now."""
        observer = self._observer
        observer.batch(tenant, outcome.accepted_readings)
        for refusal in outcome.refusals:
            observer.refused(tenant, refusal.reason, refusal.readings)
        if outcome.missed_batches:
            observer.missed(tenant, outcome.missed_batches)

    def count_failure(self, tenant: TenantId, error: TidewireError) -> None:
        """Tells the observer of a batch that failed as a whole."""
        self._observer.failed(tenant, error.reason)

    def now_us(self) -> int:
        """The clock's time."""
        return self._clock.now_us()

    def forget(self, tenant: TenantId) -> None:
        """Drops what is held of a deleted tenant."""
        self._tenants.forget(tenant)

    def _view(self, tenant: TenantId) -> TenantView:
        self._directory.require_fresh()
        view = self._directory.tenant(tenant)
        if view is None or not view.active:
            raise Unauthenticated(
                "the tenant is blocked, deleted or unknown; ask its administrator", reason="TENANT_BLOCKED"
            )
        return view

    def _slots(self, view: TenantView, caller: Caller, batch: Batch) -> NDArray[np.intp] | None:
        """(devices,): slots of the listed devices; None when one of them is not known yet."""
        table = view.devices
        names = batch.devices
        if not names:
            if caller.device_uid is None:
                why = "is empty, and the caller is not a device; name the devices"
                raise InvalidArgument("devices", why, reason="NO_DEVICES")
            slot = table.slot_by_uid.get(caller.device_uid)
            return None if slot is None else np.array([slot], np.intp)
        return self._tenants.state(view).device_slots.find(names, self._directory.generation)

    def decide(self, tenant: TenantId, caller: Caller, batch: Batch, received_us: int) -> Admission | None:
        """Decides which rows are admitted; None when the registry must be asked about a device first."""
        view = self._view(tenant)
        slots = self._slots(view, caller, batch)
        return None if slots is None else self._decide(view, caller, batch, slots, received_us)

    async def _resolve_and_decide(
        self, tenant: TenantId, caller: Caller, batch: Batch, received_us: int
    ) -> Admission:
        view = self._view(tenant)
        names = batch.devices or [caller.device_id]
        await self._resolution.resolve(tenant, names, view.devices.slot_of)
        get = view.devices.slot_of.get
        slots = np.fromiter((get(name, -1) for name in names), np.intp, len(names))
        return self._decide(view, caller, batch, slots, received_us)

    def _decide(
        self, view: TenantView, caller: Caller, batch: Batch, slots: NDArray[np.intp], received_us: int
    ) -> Admission:
        state = self._tenants.state(view)
        outcome = Outcome(batch.batch_id_text, batch.sequence)
        admission = Admission(
            view.uid,
            state,
            batch,
            Source(caller.publisher_uid, batch.batch_id, batch.sequence, received_us),
            slots,
            device_codes(state, caller, slots),
            batch.devices or [caller.device_id],
            received_us,
            self._clock.monotonic(),
            outcome,
            [],
        )
        admit(admission)
        outcome.missed_batches = self._sequences.missed(caller.publisher_uid, batch.sequence)
        return admission


class _Deferred:
    """A request that is decoded and decided on when its commit is put together."""

    __slots__ = (
        "_caller",
        "_decode",
        "_diverted",
        "_outcome",
        "_received_us",
        "_tenant",
        "_use_case",
        "future",
    )

    def __init__(
        self, use_case: PublishTelemetry, tenant: TenantId, caller: Caller, decode: Callable[[], Batch]
    ) -> None:
        self._use_case = use_case
        self._tenant = tenant
        self._caller = caller
        self._decode = decode
        self._received_us = use_case.now_us()
        self._outcome: Outcome | None = None
        self._diverted: asyncio.Task[None] | None = None
        self.future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def prepare(self) -> Sequence[Admitted]:
        """The admitted frames; none when its caller is gone or the registry must be asked first."""
        if self.future.done():
            return ()
        batch = self._decode()
        admission = self._use_case.decide(self._tenant, self._caller, batch, self._received_us)
        if admission is None:
            self._diverted = asyncio.create_task(self._divert(batch))
            return ()
        self._outcome = admission.outcome
        return admission.admitted

    def done(self, error: Exception | None) -> None:
        """What the producer calls when the frames are durable, or never will be."""
        if self._diverted is not None or self.future.done():
            return
        if error is not None:
            if isinstance(error, TidewireError):
                self._use_case.count_failure(self._tenant, error)
            self._fail(error)
        else:
            assert self._outcome is not None
            self._use_case.count(self._tenant, self._outcome)
            self.future.set_result(self._outcome)

    async def _divert(self, batch: Batch) -> None:
        """Goes the long way, which asks the registry."""
        try:
            pending = await self._use_case.begin(self._tenant, self._caller, batch)
            outcome = await self._use_case.settle(pending)
        except Exception as error:  # noqa: BLE001 - raised again in the call that waits
            if not self.future.done():
                self._fail(error)
        else:
            if not self.future.done():
                self.future.set_result(outcome)

    def _fail(self, error: Exception) -> None:
        self.future.set_exception(error)
        self.future.exception()  # a caller that went away meanwhile does not look
