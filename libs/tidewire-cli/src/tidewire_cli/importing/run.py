"""Sends a planned file to the platform: in blocks, several batches on their way, resumable, nothing twice.

Batch ids follow from the tenant, the file, the plan and the rows, so what an interrupted run had already sent is
recognised; and beyond the platform's memory for batch ids a reading replaces itself. Progress is saved when a block and
all before it are acknowledged.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tidewire_cli.importing.blocks import Block, last_time_us, read_blocks
from tidewire_cli.importing.pace import Pace
from tidewire_cli.importing.plan import ImportPlan, shifted_to_now
from tidewire_cli.importing.state import ImportState, load_state
from tidewire_client import AsyncAdminClient, AsyncConnection, AsyncTelemetryPublisher, BatchResult
from tidewire_client.times import now_us

QUOTA_REASONS = frozenset({"QUOTA_TENANT", "QUOTA_DEVICE"})
KEPT_PROBLEMS = 1000
_BLOCKS_AHEAD = 3
_QUOTA_TRIES = 8
QUOTA_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Something of the file that is not stored: its line (row in Parquet), the reason, and what it means."""

    line: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far it is: `done` of `total` are bytes of the file, or rows of a Parquet file; `total` 0: not known."""

    done: int
    total: int
    rows: int
    accepted: int
    refused: int
    seconds: float


@dataclass(slots=True)
class ImportReport:
    """What became of a file. Counts are of readings, but `rows` and `unreadable` (cells and rows of the file).

    What is not stored (`refused`, `unreadable`, problems) is that of all runs over the file, as nobody may have seen
    the report of one that was interrupted; everything else is of this run.

    Attributes:
        already_done: an earlier run had finished; nothing was sent.
        resumed_rows: rows that earlier runs had sent.
        problems: the first thousand things that are not stored, by line.
        problem_count: all of them, as far as the platform named them.
        first_time_us, last_time_us: times of the rows sent in this run; None without any.
    """

    state: ImportState
    already_done: bool = False
    resumed_rows: int = 0
    rows: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    problems: list[RowProblem] = field(default_factory=list)
    problem_count: int = 0
    devices: set[str] = field(default_factory=set)
    first_time_us: int | None = None
    last_time_us: int | None = None
    seconds: float = 0.0

    def recall(self) -> None:
        """Takes over what earlier runs could not store."""
        self.refused.update(self.state.refused_by_reason)
        self.problems = [RowProblem(*problem) for problem in self.state.problems]
        self.problem_count, self.unreadable = self.state.problem_count, self.state.unreadable

    def remember(self) -> None:
        """Hands it to the state, for the next run."""
        self.state.refused_by_reason = dict(self.refused)
        self.state.problems = [(one.line, one.reason, one.message) for one in self.problems]
        self.state.problem_count, self.state.unreadable = self.problem_count, self.unreadable

    def note(self, problem: RowProblem, count: int = 1) -> None:
        """Keeps a problem, the first thousand in words."""
        self.problem_count += count
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(problem)


async def import_file(
    connection: AsyncConnection,
    plan: ImportPlan,
    *,
    state_dir: Path | None,
    shift_to_now: bool = False,
    create_devices: bool = True,
    again: bool = False,
    until_us: int | None = None,
    batch_readings: int = 20_000,
    retry_seconds: float | None = 60.0,
    on_progress: Callable[[ImportProgress], None] | None = None,
) -> ImportReport:
    """Imports a file as its plan says.

    Args:
        connection: as somebody who may publish for the tenant, and create devices if that is asked for.
        plan: from `propose`.
        state_dir: where progress is kept; None: nowhere, and every run starts at the beginning.
        shift_to_now: move times so that the last one is now; the shift is settled in the first run and kept.
        create_devices: create the devices that do not exist.
        again: start over even when an earlier run finished or was interrupted.
        until_us: leave out what is later (after the shift), in microseconds.
        batch_readings: readings in a batch.
        retry_seconds: how long to wait for a platform that does not answer.
        on_progress: called now and then, on the event loop.

    Returns the report also when rows were refused. Raises TidewireError when it cannot go on; the next run resumes.
    """
    admin = AsyncAdminClient(connection)
    tenant = await admin.get_tenant()
    state = load_state(plan, tenant.uid, state_dir)
    if again:
        state.forget()
    report = ImportReport(state, already_done=bool(state.finished_at), resumed_rows=state.rows)
    if report.already_done:
        return report
    report.recall()
    if state.new and shift_to_now:
        last = await asyncio.to_thread(last_time_us, plan)
        state.shift_us = shifted_to_now(plan, last, now_us()).shift_us
    if state.new:
        state.save()
    pace = Pace.within(tenant.quotas, one_device=plan.device_position is None)
    batch_readings = pace.batch_readings(batch_readings)
    run = _Run(admin if create_devices else None, plan, state, report, pace, until_us, on_progress)
    publisher = AsyncTelemetryPublisher(
        connection,
        batch_readings=batch_readings,
        window=8,
        buffer_readings=batch_readings * 32,
        retry_seconds=retry_seconds,
        count=False,
        on_result=lambda _: None,
        on_refusal=None,
    )
    async with publisher:
        await run.send_all(publisher)
    state.finished_at = time.time()
    state.save()
    report.seconds = run.seconds
    return report


@dataclass(frozen=True, slots=True)
class _Sent:
    """A batch on its way: rows `start` to `stop` of a block."""

    block: Block
    start: int
    stop: int
    future: asyncio.Future[BatchResult]


class _Run:
    """One run over one file."""

    def __init__(
        self,
        admin: AsyncAdminClient | None,
        plan: ImportPlan,
        state: ImportState,
        report: ImportReport,
        pace: Pace,
        until_us: int | None,
        on_progress: Callable[[ImportProgress], None] | None,
    ) -> None:
        self._admin = admin
        self._plan = plan
        self._state = state
        self._report = report
        self._pace = pace
        self._until_us = until_us
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._total = _total(plan)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    async def send_all(self, publisher: AsyncTelemetryPublisher) -> None:
        """Reads ahead in a thread while earlier blocks are on their way; settles blocks in order."""
        blocks = read_blocks(self._plan, self._state.position)
        waiting: deque[tuple[Block, list[_Sent]]] = deque()
        while True:
            block = await asyncio.to_thread(_next, blocks)
            if block is None:
                break
            waiting.append((block, await self._send(publisher, block)))
            while len(waiting) > _BLOCKS_AHEAD:
                await self._settle(publisher, *waiting.popleft())
        await publisher.ship()
        while waiting:
            await self._settle(publisher, *waiting.popleft())

    async def _send(self, publisher: AsyncTelemetryPublisher, block: Block) -> list[_Sent]:
        rows = block.rows
        times = block.time_unix_us + self._state.shift_us
        if self._until_us is not None and rows and int(times.max()) > self._until_us:
            keep = times <= self._until_us
            block, times = _only(block, keep), times[keep]
            rows = block.rows
        if not rows:
            return []
        await self._create(block)
        report = self._report
        first, last = int(times.min()), int(times.max())
        report.first_time_us = first if report.first_time_us is None else min(first, report.first_time_us)
        report.last_time_us = last if report.last_time_us is None else max(last, report.last_time_us)
        step = publisher.rows_in_batch(len(block.metrics), block.devices)
        return [
            await self._send_rows(publisher, block, start, min(start + step, rows))
            for start in range(0, rows, step)
        ]

    async def _send_rows(
        self, publisher: AsyncTelemetryPublisher, block: Block, start: int, stop: int, attempt: str = ""
    ) -> _Sent:
        await self._pace.wait((stop - start) * len(block.metrics))
        future = await publisher.send_columns(
            block.devices if block.device_index is not None else block.devices[0],
            block.time_unix_us[start:stop] + self._state.shift_us,
            block.metrics,
            block.values[:, start:stop],
            device_index=None if block.device_index is None else block.device_index[start:stop],
            batch_id=self._state.batch_id(block.number, start, stop, attempt),
        )
        return _Sent(block, start, stop, future)

    async def _create(self, block: Block) -> None:
        devices = block.devices
        if block.device_index is not None:
            devices = tuple(devices[i] for i in np.unique(block.device_index).tolist())
        new = [device for device in devices if device not in self._report.devices]
        if new and self._admin is not None:
            await self._admin.ensure_devices(new)
        self._report.devices.update(new)

    async def _settle(self, publisher: AsyncTelemetryPublisher, block: Block, sent: list[_Sent]) -> None:
        """Waits for a block's acknowledgements, counts them, and saves how far the file is done."""
        report, state = self._report, self._state
        for batch in sent:
            result = await self._through_quota(publisher, batch, await batch.future)
            if result.error is not None:
                raise result.error
        for problem in block.unreadable:
            report.note(RowProblem(problem.line, "UNREADABLE", problem.why))
        report.problem_count += block.unreadable_count - len(block.unreadable)
        report.unreadable += block.unreadable_count
        report.rows += block.rows
        state.position = block.end
        state.rows += block.rows
        report.remember()
        state.save()
        if self._on_progress is not None:
            refused = sum(report.refused.values())
            self._on_progress(
                ImportProgress(
                    block.end.offset, self._total, state.rows, report.accepted, refused, self.seconds
                )
            )

    async def _through_quota(
        self, publisher: AsyncTelemetryPublisher, sent: _Sent, result: BatchResult
    ) -> BatchResult:
        """Sends what a quota refused again, in smaller parts and after the delay asked for; counts all the rest.

        A refusal does not name every row, so the whole part goes again, under another id; what had been accepted of it
        replaces itself.
        """
        todo, tries = deque([(sent, result)]), 0
        while todo:
            batch, outcome = todo.popleft()
            over = [refusal for refusal in outcome.refusals if refusal.reason in QUOTA_REASONS]
            if outcome.error is not None:
                return outcome
            if not over or tries >= _QUOTA_TRIES:
                self._count(batch, outcome)
                continue
            tries = tries + 1 if not outcome.accepted_readings else 0
            await asyncio.sleep(outcome.retry_delay_seconds or QUOTA_WAIT_SECONDS)
            rows = batch.stop - batch.start
            accepted_rows = rows - sum(refusal.rows for refusal in outcome.refusals)
            step = min(rows, max(1, accepted_rows, rows // 16))
            for start in range(batch.start, batch.stop, step):
                stop = min(start + step, batch.stop)
                part = await self._send_rows(publisher, batch.block, start, stop, f"{time.time_ns()}")
                todo.append((part, await part.future))
        return result

    def _count(self, sent: _Sent, result: BatchResult) -> None:
        report = self._report
        report.accepted += result.accepted_readings
        self._state.accepted += result.accepted_readings
        for refusal in result.refusals:
            report.refused[refusal.reason] += refusal.readings
            self._state.refused += refusal.readings
            for row in refusal.first_rows:
                line = int(sent.block.lines[sent.start + row])
                report.note(RowProblem(line, refusal.reason, refusal.message))
            report.problem_count += refusal.rows - len(refusal.first_rows)


def _next(blocks: Iterator[Block]) -> Block | None:
    return next(blocks, None)


def _only(block: Block, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Block:
    return Block(
        block.number,
        block.lines[keep],
        block.devices,
        None if block.device_index is None else block.device_index[keep],
        block.time_unix_us[keep],
        block.metrics,
        block.values[:, keep],
        block.unreadable,
        block.unreadable_count,
        block.end,
    )


def _total(plan: ImportPlan) -> int:
    """What `end.offset` of the last block will be; 0 when that is not known (compressed)."""
    if plan.format == "parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(plan.path).num_rows)
    from tidewire_cli.importing.csv_source import COMPRESSED

    return 0 if plan.path.suffix.lower() in COMPRESSED else plan.path.stat().st_size
