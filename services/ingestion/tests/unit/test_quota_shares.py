"""Shares over several processes that exchange their reports through memory, second by second."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tidewire.registry.v1.resources_pb2 import TenantQuotas
from tidewire_ingestion.application.quota_shares import MOST_DEVICES, QuotaShares
from tidewire_ingestion.application.tenants import Tenants, TenantState
from tidewire_kit.fairshare import Board
from tidewire_kit.ids import TenantId
from tidewire_testkit.clock import ManualClock
from tidewire_testkit.directory import World


class Told:
    def __init__(self) -> None:
        self.shares: list[tuple[float, float]] = []

    def quota_shares(self, tenant: TenantId, readings: float, batches: float) -> None:
        self.shares.append((readings, batches))


class Process:
    """The shares of one process."""

    def __init__(self, name: str, members: int, clock: ManualClock, world: World) -> None:
        self.board = Board(name)
        self.board.members, self.board.informed = members, True
        self.name = name
        self.tenants = Tenants()
        self.told = Told()
        self.shares = QuotaShares(self.board, self.tenants.shared, self.told, clock.monotonic)
        self.tenants.on_new(self.shares.begin)
        self._world = world

    def state(self, tenant: TenantId) -> TenantState:
        view = self._world.directory.tenant(tenant)
        assert view is not None
        return self.tenants.state(view)


class Several:
    def __init__(self, members: int, **quotas: int) -> None:
        self.clock = ManualClock()
        self.world = World(self.clock, 4)
        tenant = self.world.add_tenant("acme", TenantQuotas(**quotas))
        self.tenant = tenant.uid
        self.devices = [
            self.world.add_device(tenant, f"pump-{number}") for number in range(MOST_DEVICES + 10)
        ]
        self.processes = [Process(str(number), members, self.clock, self.world) for number in range(members)]

    def second(self, ask: Callable[[int, TenantState], int]) -> int:
        """Lets each process be asked twenty times, then exchange reports; returns what was given altogether."""
        given = 0
        for _ in range(20):
            self.clock.advance(0.05)
            given += sum(ask(n, process.state(self.tenant)) for n, process in enumerate(self.processes))
        now = self.clock.monotonic()
        reports = {process.name: process.shares.demand(process.board, 1.0) for process in self.processes}
        for process in self.processes:
            for name, report in reports.items():
                if report:
                    process.board.put(name, report, now)
        for process in self.processes:
            process.shares.adopt(process.board, now)
        return given

    def readings(self, *rates: int) -> int:
        """A second in which each process is asked for so many readings."""
        return self.second(
            lambda n, state: state.readings.take(rates[n] // 20, self.clock.monotonic()) if rates[n] else 0
        )

    def parts(self) -> list[float]:
        return [process.state(self.tenant).readings.share for process in self.processes]


def test_before_anything_is_known_each_process_has_an_equal_part() -> None:
    several = Several(4, readings_per_second=1000)
    assert several.parts() == [0.25] * 4
    assert several.processes[0].state(several.tenant).readings.take(10**6, several.clock.monotonic()) == 2500


def test_a_publisher_on_one_process_has_all_of_it_after_two_reports() -> None:
    several = Several(3, readings_per_second=1000, burst_readings=300)
    given = [several.readings(3000, 0, 0) for _ in range(6)]
    assert several.parts() == pytest.approx([1.0, 1 / 12, 1 / 12])
    assert given[0] == pytest.approx(1000 / 3 + 100, abs=20)
    assert given[2:] == pytest.approx([1000] * 4, rel=0.02)


@pytest.mark.parametrize("members", [2, 3, 5])
def test_wherever_the_demand_goes_no_more_than_the_bound_passes(members: int) -> None:
    several = Several(members, readings_per_second=1000, burst_readings=100)
    rng = np.random.default_rng(members)
    sums = []
    for _ in range(40):
        busy = rng.random(members) < 0.5
        rates = np.where(busy, rng.choice([20, 200, 2000, 50_000], members), 0)
        for _ in range(int(rng.integers(1, 6))):
            given = several.readings(*rates.tolist())
            sums.append(given)
            assert sum(several.parts()) <= 1.25 + 1e-9
            assert min(several.parts()) >= 0.25 / members - 1e-9
    # Each second: a quarter more than the quota, and what the buckets held; in the long run the quota and no more.
    assert max(sums) <= 1250 + 1.25 * 100 + members * 10
    assert sum(sums) <= 1.05 * 1000 * len(sums)


def test_demand_within_the_quota_is_never_refused_once_it_is_known() -> None:
    several = Several(3, readings_per_second=1000, burst_readings=100)
    for _ in range(10):
        several.readings(700, 200, 40)
    assert [several.readings(700, 200, 40) for _ in range(5)] == [940] * 5


def test_batches_have_shares_of_their_own() -> None:
    several = Several(2, batches_per_second=40)

    def ask(number: int, state: TenantState) -> int:
        return state.batches.take(3 if number == 0 else 1, several.clock.monotonic())

    for _ in range(12):
        given = several.second(ask)
    assert given == pytest.approx(40, abs=2)
    shares = [process.state(several.tenant).batches.share for process in several.processes]
    assert shares == pytest.approx([0.75, 0.25], abs=0.01)


def test_changes_are_told_once() -> None:
    several = Several(2, readings_per_second=1000)
    for _ in range(5):
        several.readings(100, 0)
    assert several.processes[0].told.shares == [(0.5, 0.5), (1.0, 0.5)]
    assert several.processes[1].told.shares == [(0.125, 0.5)]


def test_a_device_has_its_quota_where_it_publishes_and_its_siblings_an_equal_part() -> None:
    several = Several(2, device_readings_per_second=100)
    slots = several.processes[0].state(several.tenant).view.devices.slot_by_uid
    hot, cool = slots[several.devices[0].uid], slots[several.devices[1].uid]

    def ask(number: int, state: TenantState) -> int:
        if number == 1:
            return 0
        refused, _ = state.device_readings.take(
            np.full(20, hot), np.ones(20, np.int64), several.clock.monotonic()
        )
        return 20 - (0 if refused is None else int(refused.sum()))

    given = [several.second(ask) for _ in range(30)]
    assert given[-5:] == pytest.approx([100] * 5, abs=2)
    here, there = (process.state(several.tenant).device_readings for process in several.processes)
    assert here.shares_of(np.array([hot, cool])).tolist() == pytest.approx([1.0, 0.5])
    assert there.shares_of(np.array([hot, cool])).tolist() == pytest.approx([0.125, 0.5])


def test_of_many_hot_devices_the_busiest_are_reported() -> None:
    several = Several(2, device_readings_per_second=1)
    process = several.processes[0]
    state = process.state(several.tenant)
    slots = np.array([state.view.devices.slot_by_uid[device.uid] for device in several.devices], np.intp)
    state.device_readings.take(slots, np.arange(1, len(slots) + 1) * 100, 0.0)
    (report,) = process.shares.demand(process.board, 1.0)
    assert len(report.devices) == MOST_DEVICES
    assert several.devices[0].uid not in report.devices
    assert several.devices[-1].uid in report.devices


def test_who_has_little_demand_of_a_device_that_others_report_reports_it_too() -> None:
    several = Several(2, device_readings_per_second=1000)
    slot = several.processes[0].state(several.tenant).view.devices.slot_by_uid[several.devices[0].uid]

    def ask(rates: Sequence[int]) -> Callable[[int, TenantState], int]:
        def one(number: int, state: TenantState) -> int:
            amount = np.array([rates[number]], np.int64)
            return (
                state.device_readings.take(np.array([slot], np.intp), amount, several.clock.monotonic())[0]
                is None
            )

        return one

    for _ in range(8):
        several.second(ask([45, 3]))
    shares = [
        process.state(several.tenant).device_readings.shares_of(np.array([slot]))[0]
        for process in several.processes
    ]
    assert shares == pytest.approx([0.9375, 0.125], abs=0.07)


def test_a_process_that_is_cut_off_takes_an_equal_part() -> None:
    several = Several(2, readings_per_second=1000)
    for _ in range(5):
        several.readings(100, 0)
    lost = several.processes[1]
    lost.board.informed = False
    several.readings(100, 0)
    several.readings(100, 0)
    assert several.parts() == [1.0, 0.5]
