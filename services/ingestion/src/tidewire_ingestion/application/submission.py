"""A batch on its way from a front end to the log: what waits for its commit, what is told when that is durable."""

import asyncio
import copy
from collections.abc import Callable

from tidewire_ingestion.domain import Outcome
from tidewire_ingestion.ports import Observer
from tidewire_kit.errors import TidewireError
from tidewire_kit.identity import Caller
from tidewire_kit.ids import TenantId
from tidewire_kit.telemetry.admitted import Admitted
from tidewire_kit.telemetry.batch import RawBatch


class Lane:
    """Submissions that must keep their order even when one has to wait for the registry: those of one stream."""

    __slots__ = ("diverted", "last_begun")

    def __init__(self) -> None:
        self.diverted = 0
        """Submissions that went the long way and have not come to their end; later ones then must follow them."""
        self.last_begun: asyncio.Future[None] | None = None
        """Done once the last of them has been given to the producer, or has failed."""


class Submission:
    """One batch that was taken in. `outcome` comes when all its admitted rows are durable, or fails."""

    __slots__ = ("batch_id", "caller", "lane", "outcome", "read", "received_us", "sequence", "tenant")

    def __init__(
        self,
        tenant: TenantId,
        caller: Caller,
        read: Callable[[], RawBatch],
        received_us: int,
        lane: Lane | None,
        outcome: "asyncio.Future[Outcome]",
    ) -> None:
        self.tenant = tenant
        self.caller = caller
        self.read = read
        self.received_us = received_us
        self.lane = lane
        self.outcome = outcome
        self.batch_id = ""
        """As the publisher wrote it; known once the batch was read."""
        self.sequence = 0
        """Likewise."""

    def succeed(self, outcome: Outcome) -> None:
        """Tells whoever waits, if it is still there."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def fail(self, error: Exception) -> None:
        """Tells whoever waits, if it is still there."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
            self.outcome.exception()  # a caller that went away meanwhile does not look


class Decided:
    """What was decided on the submissions of a commit together. `Prepared`, as the producer calls it."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.frames: list[Admitted] = []
        self._carried: list[tuple[Submission, Outcome]] = []

    def carry(self, submission: Submission, outcome: Outcome) -> None:
        """Lets the submission wait for the commit: rows of it are in `frames`."""
        self._carried.append((submission, outcome))

    def done(self, error: Exception | None) -> None:
        """The commit is durable, or has failed."""
        if error is None:
            count_outcomes(self._observer, self._carried)
        for submission, outcome in self._carried:
            if error is None:
                submission.succeed(outcome)
                continue
            if isinstance(error, TidewireError):
                self._observer.failed(submission.tenant, error.reason)
            submission.fail(copy.copy(error))  # each is raised on its own, with its own traceback


def count_outcomes(observer: Observer, settled: list[tuple[Submission, Outcome]]) -> None:
    """Tells the observer of outcomes that hold now, once for each tenant."""
    sums: dict[TenantId, list[int]] = {}
    for submission, outcome in settled:
        mine = sums.get(submission.tenant)
        if mine is None:
            mine = sums[submission.tenant] = [0, 0]
        mine[0] += 1
        mine[1] += outcome.accepted_readings
        if outcome.refusals or outcome.missed_batches:
            count_faults(observer, submission.tenant, outcome)
    for tenant, (batches, accepted_readings) in sums.items():
        observer.answered(tenant, batches, accepted_readings)


def count_faults(observer: Observer, tenant: TenantId, outcome: Outcome) -> None:
    """Tells the observer what was refused and what is missing."""
    for refusal in outcome.refusals:
        observer.refused(tenant, refusal.reason, refusal.readings)
    if outcome.missed_batches:
        observer.missed(tenant, outcome.missed_batches)
