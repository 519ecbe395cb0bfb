"""The use case: takes a batch in, and tells what became of it once that is durable.

Every front end (gRPC now, HTTP and MQTT later) decodes a batch, calls this, and renders the outcome. None of them knows
of quotas, partitions or the log.
"""

import asyncio
from collections.abc import Sequence
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
    ) -> None:
        self._directory = directory
        self._producer = producer
        self._resolution = resolution
        self._clock = clock
        self._observer = observer
        self._tenants = Tenants()
        self._sequences = Sequences()

    async def publish(self, tenant: TenantId, caller: Caller, batch: Batch) -> Outcome:
        """Returns when all admitted rows of `batch` are durable. Errors as `begin` and `settle`."""
        return await self.settle(await self.begin(tenant, caller, batch))

    async def begin(self, tenant: TenantId, caller: Caller, batch: Batch) -> Pending:
        """Decides on the batch and gives its admitted rows to the producer, in the order of the calls.

        Suspends only to ask the registry for devices not seen before. Raises InvalidArgument, Unauthenticated (the
        tenant is blocked), Unavailable (stale directory, registry, stopping) and QuotaExceeded (OVERLOADED); then
        nothing was taken.
        """
        try:
            view = self._view(tenant)
            received_us = self._clock.now_us()
            slots = self._slots(view, caller, batch)
            if slots is None:
                names = batch.devices or [caller.device_id]
                await self._resolution.resolve(tenant, names, view.devices.slot_of)
                get = view.devices.slot_of.get
                slots = np.fromiter((get(name, -1) for name in names), np.intp, len(names))
            return self._decide(view, caller, batch, slots, received_us)
        except TidewireError as error:
            self._observer.failed(tenant, error.reason)
            raise

    async def settle(self, pending: Pending) -> Outcome:
        """Returns the outcome once it holds. Raises what the log raised; then the batch is to be sent again."""
        outcome = pending.outcome
        if pending.durable is not None:
            try:
                await pending.durable
            except TidewireError as error:
                self._observer.failed(pending.tenant, error.reason)
                raise
        observer = self._observer
        observer.batch(pending.tenant, outcome.accepted_readings)
        for refusal in outcome.refusals:
            observer.refused(pending.tenant, refusal.reason, refusal.readings)
        if outcome.missed_batches:
            observer.missed(pending.tenant, outcome.missed_batches)
        return outcome

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
        try:
            return np.fromiter(map(table.slot_of.__getitem__, names), np.intp, len(names))
        except KeyError:
            return None

    def _decide(
        self, view: TenantView, caller: Caller, batch: Batch, slots: NDArray[np.intp], received_us: int
    ) -> Pending:
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
        durable: asyncio.Future[None] | None = None
        if admission.admitted:
            try:
                durable = self._producer.publish(view.uid, admission.admitted)
            except TidewireError:
                state.readings.put_back(outcome.accepted_readings)
                raise
        outcome.missed_batches = self._sequences.missed(caller.publisher_uid, batch.sequence)
        return Pending(view.uid, outcome, durable)
