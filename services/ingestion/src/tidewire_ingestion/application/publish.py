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
from tidewire_ingestion.application.joint import Run, candidate
from tidewire_ingestion.application.resolution import Resolution
from tidewire_ingestion.application.sequences import Sequences
from tidewire_ingestion.application.submission import (
    Decided,
    Lane,
    Submission,
    count_faults,
    count_outcomes,
)
from tidewire_ingestion.application.tenants import Tenants
from tidewire_ingestion.domain import Outcome
from tidewire_ingestion.ports import Observer
from tidewire_kit.clock import Clock
from tidewire_kit.directory import Directory, TenantView
from tidewire_kit.errors import InvalidArgument, TidewireError, Unauthenticated
from tidewire_kit.identity import Caller
from tidewire_kit.ids import TenantId
from tidewire_kit.observability.logs import get_logger
from tidewire_kit.telemetry.admitted import Admitted, Source
from tidewire_kit.telemetry.batch import Batch, RawBatch

logger = get_logger(__name__)


class Producer(Protocol):
    """The coalescing producer, as this use case sees it."""

    def publish(self, tenant: TenantId, frames: Sequence[Admitted]) -> asyncio.Future[None]:
        """See `tidewire_kit.telemetry.producer.TelemetryProducer.publish`."""

    def submit(self, tenant: TenantId, size: int, preparer: "PublishTelemetry", request: Submission) -> None:
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
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def publish(
        self,
        tenant: TenantId,
        caller: Caller,
        size: int,
        read: Callable[[], RawBatch],
        lane: Lane | None = None,
    ) -> Submission:
        """Takes a batch of about `size` bytes; its outcome comes when all its admitted rows are durable.

        It is read and decided on when the producer puts together its next commit, together with all others of that
        commit. Batches of one lane keep their order. Errors as `begin`, `settle` and `read`; those of the producer's
        bounds are raised here, others by the outcome. Raises QuotaExceeded (QUOTA_TENANT) unread for a tenant that asks
        for several times its quota.
        """
        outcome: asyncio.Future[Outcome] = self._loop.create_future()
        submission = Submission(tenant, caller, read, self._clock.now_us(), lane, outcome)
        try:
            known = self._tenants.known(tenant)
            if known is not None:
                known.refuse_unseen(size, self._clock.monotonic())
            self._producer.submit(tenant, size, self, submission)
        except TidewireError as error:
            self._observer.failed(tenant, error.reason)
            raise
        return submission

    def prepare(self, requests: Sequence[Submission]) -> Decided:
        """Decides on submissions in their order; called by the producer. See `Preparer`."""
        decided = Decided(self._observer)
        by_tenant: dict[TenantId, list[Submission]] = {}
        for submission in requests:
            if not submission.outcome.done():  # else its caller is gone
                by_tenant.setdefault(submission.tenant, []).append(submission)
        for (
            tenant,
            mine,
        ) in by_tenant.items():  # tenants have nothing in common, so their order does not matter
            try:
                self._decide_together(tenant, mine, decided)
            except Exception as error:  # a fault of ours; those it met must not wait for ever
                logger.exception("deciding_failed", requests=len(mine))
                for submission in mine:
                    submission.fail(error)
        return decided

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
            self._observer.failed(tenant, error.reason)
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
        self._observer.answered(pending.tenant, 1, outcome.accepted_readings)
        count_faults(self._observer, pending.tenant, outcome)
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

    # Many submissions together

    def _decide_together(self, tenant: TenantId, submissions: Sequence[Submission], decided: Decided) -> None:
        """Decides on submissions of one tenant as `decide` would on each in turn."""
        try:
            state = self._tenants.state(self._view(tenant))
        except TidewireError:
            for submission in submissions:
                self._decide_alone(submission, None, decided)
            return
        run, generation = Run(state), self._directory.generation
        for submission in submissions:
            raw = self._read(submission)
            if raw is None:
                continue
            batch = None
            if submission.lane is None or not submission.lane.diverted:
                batch = candidate(state, submission, raw, generation)
            if batch is not None and run.takes(batch):
                continue
            self._close(run, decided)
            run = Run(state)
            if batch is None or not run.takes(batch):
                self._decide_alone(submission, raw, decided)
        self._close(run, decided)

    def _close(self, run: Run, decided: Decided) -> None:
        """Admits all batches of a run, or all but those that must be looked at by themselves, in their order."""
        if not run.candidates:
            return
        if not run.is_clean():
            rest = Run(run.state)
            for batch in run.candidates:
                if batch.suspect:
                    self._close(rest, decided)
                    rest = Run(run.state)
                    self._decide_alone(batch.submission, batch.raw, decided)
                else:
                    rest.takes(batch)
            self._close(rest, decided)
        elif not run.take_quota(self._clock.monotonic()):
            for batch in run.candidates:
                self._decide_alone(batch.submission, batch.raw, decided)
        else:
            decided.frames += run.admitted()
            for batch in run.candidates:
                source = batch.source
                outcome = Outcome(batch.batch_id_text, source.sequence, batch.readings)
                outcome.missed_batches = self._sequences.missed(source.publisher_uid, source.sequence)
                decided.carry(batch.submission, outcome)

    def _read(self, submission: Submission) -> RawBatch | None:
        try:
            raw = submission.read()
        except Exception as error:  # noqa: BLE001 - whoever sent it is told, whatever it is
            self._fail(submission, error)
            return None
        submission.batch_id, submission.sequence = raw.batch_id_text, raw.sequence
        return raw

    def _decide_alone(self, submission: Submission, raw: RawBatch | None, decided: Decided) -> None:
        """Decides on one submission by itself; the truth about it. `raw` None: not read yet."""
        raw = raw or self._read(submission)
        if raw is None:
            return
        tenant, caller = submission.tenant, submission.caller
        try:
            batch = raw.checked()
            admission = None
            if submission.lane is None or not submission.lane.diverted:
                admission = self.decide(tenant, caller, batch, submission.received_us)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(submission, error)
            return
        if admission is None:
            self._divert(submission, batch)
        elif admission.admitted:
            decided.frames += admission.admitted
            decided.carry(submission, admission.outcome)
        else:
            count_outcomes(self._observer, [(submission, admission.outcome)])
            submission.succeed(admission.outcome)

    def _divert(self, submission: Submission, batch: Batch) -> None:
        """Sends a submission the long way, which asks the registry."""
        begun: asyncio.Future[None] = self._loop.create_future()
        after, lane = None, submission.lane
        if lane is not None:
            after, lane.last_begun = lane.last_begun, begun
            lane.diverted += 1
        task = self._loop.create_task(self._go_long_way(submission, batch, after, begun))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _go_long_way(
        self,
        submission: Submission,
        batch: Batch,
        after: "asyncio.Future[None] | None",
        begun: "asyncio.Future[None]",
    ) -> None:
        try:
            if after is not None:
                await after
            try:
                pending = await self.begin(submission.tenant, submission.caller, batch)
            finally:
                begun.set_result(None)
            submission.succeed(await self.settle(pending))
        except Exception as error:  # noqa: BLE001 - raised again where the outcome is awaited
            submission.fail(error)
        finally:
            if submission.lane is not None:
                submission.lane.diverted -= 1

    def _fail(self, submission: Submission, error: Exception) -> None:
        if isinstance(error, TidewireError):
            self._observer.failed(submission.tenant, error.reason)
        submission.fail(error)
