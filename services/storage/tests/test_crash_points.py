"""Storage stopped at every point of a life that has everything in it, and carried on by a new owner.

The life: two tenants that stay and one that goes, retries, corrections, late readings, flushes, seals, merges,
rollups, expiry, the deletion of a device and of a tenant. Two ways of being stopped. A kill: the disk is as it was at
that moment, and memory is gone; the embedded store is photographed after each of its steps. A call of the store's port
that fails, before it took effect or after; what asked for it goes on in the same process.
"""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from crash_points.checks import check_everything, check_no_orphans
from crash_points.failing import FailingStore
from crash_points.history import ANCIENT, DAY0, History
from crash_points.lives import DEVICES, HOUR, LIFE, Step, carried_on, happen, lived
from crash_points.owner import owning
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire_kit.errors import Unavailable
from tidewire_storage.adapters.embedded import EmbeddedStore
from tidewire_storage.domain.blocks import StoredBlock


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.thorough)])
@pytest.mark.timeout(300)
async def test_killed_at_any_point_a_new_owner_carries_it_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thorough: bool
) -> None:
    life = await lived(LIFE, tmp_path / "life", monkeypatch, every_piece=thorough)
    labels = " ".join(picture.label for _, _, picture in life.pictures)
    assert all(step in labels for step in ("flush", "cut", "seal", "merge", "purge", "expire"))
    assert all(act in labels for act in ("fsync", "unlink", "COMMIT", "power lost"))
    assert len(life.pictures) > 50
    for number in range(len(life.pictures)):
        directory = tmp_path / f"life{number}"
        await carried_on(life, number, directory, to_the_end=thorough or number % 6 < 2, every_call=thorough)
        shutil.rmtree(directory)


def unavailable() -> Unavailable:
    return Unavailable("storage", "as a test wants it")


@pytest.mark.parametrize("error", [unavailable, asyncio.CancelledError])
async def test_each_call_of_the_store_fails_once(tmp_path: Path, error: Callable[[], BaseException]) -> None:
    """Cancelled are rounds of housekeeping, when the process ends; storing is not."""
    history = History(DEVICES)
    failed: list[str] = []
    async with owning(history, tmp_path, FailingStore) as owner:
        port = owner.port
        assert isinstance(port, FailingStore)
        for step in LIFE:
            if happen(history, step):
                continue
            stores = step in ("flush", "cut", "drain")
            for number in itertools.count():
                port.arm(number // 2, unavailable if stores else error, after=number % 2 == 1)
                try:
                    await owner.step(step)
                except (Unavailable, asyncio.CancelledError):
                    assert port.failed is not None
                    failed.append(f"{step} {port.failed}")
                    if stores:  # as the loop of an owner does
                        await owner.load()
                else:
                    if port.failed is None:
                        break
                    failed.append(f"{step} {port.failed}")
            port.arm(-1, error, after=False)
            history.expired |= step == "expire"
        await owner.step("purge")
        await check_everything(owner)
        await check_no_orphans(owner, tmp_path)
    for step, calls in (
        ("flush", ("commit",)),
        ("cut", ("commit", "note_cut")),
        ("seal", ("blocks_of_epoch", "read", "seal")),
        ("merge", ("unmerged", "read_ranges", "seal")),
        ("expire", ("expire", "sweep")),
        ("purge", ("bury",)),
    ):
        for call in calls:
            assert {f"{step} before {call}", f"{step} after {call}"} <= set(failed)


OWNERS = ("flush", "cut", "seal", "merge", "purge")
MOMENTS = (0, 1, 60_000_000, 61_000_000, HOUR, 7 * HOUR, -HOUR)


@st.composite
def lives(draw: st.DrawFn) -> list[Step]:
    """Any order of batches, retries, steps of the owner and deletions."""
    steps: list[Step] = []
    sent: list[Step] = []
    for number in range(draw(st.integers(6, 16))):
        kind = draw(st.sampled_from(["batch"] * 4 + ["again"] + ["flush"] * 3 + [*OWNERS, "delete"]))
        if kind == "batch":
            device = draw(st.sampled_from(DEVICES))
            metrics = draw(st.sampled_from(["x", "xy", "zx"]))
            first = ANCIENT if device.startswith("brief.") else DAY0
            times = draw(st.lists(st.sampled_from(MOMENTS), min_size=1, max_size=4))
            rows = [(first + time, [float(number * 10 + n) for n in range(len(metrics))]) for time in times]
            sent.append(("publish", device, str(number), metrics, rows))
            steps.append(sent[-1])
        elif kind == "again" and sent:
            steps.append(draw(st.sampled_from(sent)))
        elif kind == "delete":
            steps += [("delete", draw(st.sampled_from(("keep.gone", "keep.e", "doomed")))), "purge"]
        elif kind in OWNERS:
            steps.append(kind)
    return [*steps, "cut", "seal", "merge", "drain"]


@pytest.mark.parametrize("examples", [3, pytest.param(100, marks=pytest.mark.thorough)])
@pytest.mark.timeout(300)
def test_any_life_killed_at_some_points(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(steps=lives(), picks=st.lists(st.integers(0, 1 << 20), min_size=2, max_size=2))
    def killed(steps: list[Step], picks: list[int]) -> None:
        with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as monkeypatch:
            asyncio.run(_killed_at_some_points(steps, picks, Path(directory), monkeypatch))

    killed()


async def _killed_at_some_points(
    steps: list[Step], picks: list[int], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = await lived(steps, directory / "life", monkeypatch)
    for pick in {pick % len(life.pictures) for pick in picks}:
        await carried_on(life, pick, directory / f"life{pick}")


async def test_newest_values_are_caught_up_though_the_last_owner_seals_meanwhile(tmp_path: Path) -> None:
    history = History(DEVICES)
    for step in LIFE[:4]:
        happen(history, step)
    async with owning(history, tmp_path) as last:
        for step in ("flush", "cut"):
            await last.step(step)

        class SealedMeanwhile:
            def __init__(self, store: EmbeddedStore) -> None:
                self.store = store
                self.sealed = 0

            def __getattr__(self, name: str) -> Any:
                return getattr(self.store, name)

            async def read(self, blocks: Sequence[StoredBlock]) -> list[bytes | None]:
                if not self.sealed:
                    self.sealed = await last.sealing.round()
                    await last.store.close()  # so that the file is at rest
                    await self.store.sweep()
                return await self.store.read(blocks)

        async with owning(history, tmp_path, SealedMeanwhile) as owner:
            assert owner.port.sealed == 1
            await owner.step("drain")
            await check_everything(owner)
