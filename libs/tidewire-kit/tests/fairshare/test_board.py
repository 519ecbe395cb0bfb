"""What a process makes of the others' reports, and what becomes of reports that grow old."""

import numpy as np
import pytest

from tidewire_kit.fairshare import Board, TenantDemand
from tidewire_kit.fairshare.board import FORGET_SECONDS, FRESH_SECONDS, decode, encode
from tidewire_kit.ids import TenantId, new_uid

ACME = TenantId(new_uid())
PUMP, FAN = bytes(new_uid()), bytes(new_uid())


def board(members: int = 2) -> Board:
    made = Board("me")
    made.members, made.informed = members, True
    return made


def demand(readings: float, batches: float = 0.0, **devices: float) -> list[TenantDemand]:
    uids = {"pump": PUMP, "fan": FAN}
    return [TenantDemand(ACME, readings, batches, {uids[name]: rate for name, rate in devices.items()})]


def readings_share(board: Board, now: float) -> float:
    return board.shares(ACME, 100.0, 0.0, now)[0]


def test_alone_a_process_has_everything() -> None:
    assert board(1).shares(ACME, 100.0, 10.0, 0.0) == (1.0, 1.0)


def test_before_any_report_the_quota_is_divided_equally() -> None:
    made = board(4)
    assert made.shares(ACME, 100.0, 10.0, 0.0) == (0.25, 0.25)
    made.put("me", demand(50), 0.0)
    made.informed = False
    assert made.shares(ACME, 100.0, 10.0, 0.0) == (0.25, 0.25), "its own report proves nothing"


def test_the_share_is_the_part_of_the_demand() -> None:
    made = board(2)
    made.put("me", demand(60, 1), 0.0)
    assert readings_share(made, 0.0) == 1.0
    made.put("other", demand(140, 3), 0.0)
    assert made.shares(ACME, 100.0, 2.0, 0.0) == pytest.approx((0.3, 0.25))


def test_a_report_that_is_not_renewed_fades_and_is_forgotten() -> None:
    made = board(2)
    made.put("other", demand(100), 0.0)
    made.put("me", demand(100), FRESH_SECONDS)
    shares = [readings_share(made, FRESH_SECONDS + step / 2) for step in range(6)]
    assert shares[0] == pytest.approx(0.5)
    assert shares == sorted(shares)
    assert shares[-1] > 0.95, "2.5 s on"
    assert made.fresh(FRESH_SECONDS + 1) == 1
    assert made.forget(FORGET_SECONDS + 1) == ["other"]
    assert made.forget(FORGET_SECONDS + 1) == []


def test_a_tenant_that_is_silent_everywhere_keeps_its_shares_until_the_reports_are_forgotten() -> None:
    made = board(2)
    made.put("me", demand(30), 0.0)
    made.put("other", demand(70), 0.0)
    assert readings_share(made, 1.0) == pytest.approx(0.3)
    assert readings_share(made, 50.0) == pytest.approx(0.3)
    made.forget(FORGET_SECONDS + 1)
    assert readings_share(made, FORGET_SECONDS + 1) == 0.5


def test_a_process_that_stops_counts_no_more_at_once() -> None:
    made = board(2)
    made.put("me", demand(10), 0.0)
    made.put("other", demand(90), 0.0)
    made.remove("other")
    made.remove("never there")
    assert readings_share(made, 0.0) == 1.0


def test_devices_have_shares_of_their_own() -> None:
    made = board(2)
    assert made.device_shares(ACME, 10.0, 0.0)[0] == []
    made.put("me", demand(10, 0, pump=30), 0.0)
    made.put("other", demand(10, 0, pump=10, fan=20), 0.0)
    uids, parts = made.device_shares(ACME, 10.0, 0.0)
    assert dict(zip(uids, parts.tolist(), strict=True)) == pytest.approx({PUMP: 0.75, FAN: 0.125})
    assert made.reported_devices(ACME, 0.0) == {PUMP, FAN}


def test_two_processes_reckon_alike() -> None:
    mine, theirs = board(2), Board("other")
    theirs.members, theirs.informed = 2, True
    for made in (mine, theirs):
        made.put("me", demand(500, 3, pump=7), 0.0)
        made.put("other", demand(1, 9, pump=5, fan=2), 0.5)
    assert readings_share(mine, 2.0) + readings_share(theirs, 2.0) <= 1.25
    uids, ours = mine.device_shares(ACME, 10.0, 2.0)
    assert (ours + theirs.device_shares(ACME, 10.0, 2.0)[1]).max() <= 1.25
    assert uids == [PUMP, FAN]


def test_a_report_comes_back_as_it_was_sent() -> None:
    sent = demand(12.5, 0.25, pump=3.0, fan=1.5)
    assert decode(encode(sent, 7, 1_700_000_000_000_000)) == (7, 1_700_000_000_000_000, sent)


@pytest.mark.parametrize("rate", [-1.0, np.inf, np.nan])
def test_a_report_that_cannot_be_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="no demand"):
        decode(encode(demand(rate), 1, 0))


def test_a_report_with_half_a_uid_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        decode(encode([TenantDemand(TenantId(b"short"), 1.0, 1.0)], 1, 0))
