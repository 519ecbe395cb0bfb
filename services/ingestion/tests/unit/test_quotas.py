"""Token buckets by themselves: shares of a quota, and when a request is refused unseen."""

import numpy as np
import pytest

from tidewire_ingestion.application.quotas import LEAST_BURST, DeviceBuckets, TokenBucket


def bucket(rate: float = 100.0, burst: float = 1000.0) -> TokenBucket:
    made = TokenBucket()
    made.configure(rate, burst)
    return made


def test_a_share_cuts_rate_and_burst() -> None:
    made = bucket()
    made.set_share(0.25, 0.0)
    assert made.take(1000, 0.0) == 250
    assert made.take(1000, 1.0) == 25
    assert made.delay(50) == pytest.approx(2.0)
    assert made.quota == 100.0


def test_moving_a_share_to_and_fro_makes_no_tokens() -> None:
    made = bucket()
    for now in range(100):
        made.set_share(0.1 if now % 2 else 1.0, 0.0)
    assert made.take(10_000, 0.0) == 100
    made.set_share(1.0, 5.0)
    assert made.take(10_000, 5.0) == 50, "what came at a tenth of the rate"
    assert made.take(10_000, 6.0) == 100


def test_the_least_share_lets_a_row_of_some_metrics_through() -> None:
    made = bucket(1.0, 20.0)
    made.set_share(0.01, 0.0)
    assert made.take(100, 0.0) == LEAST_BURST
    tiny = bucket(1.0, 2.0)
    tiny.set_share(0.01, 0.0)
    assert tiny.take(100, 0.0) == 2


def test_changed_limits_fill_the_share_of_the_bucket() -> None:
    made = bucket()
    made.set_share(0.5, 0.0)
    assert made.take(500, 0.0) == 500
    made.configure(100.0, 3000.0)
    assert made.take(10_000, 0.0) == 1500


def test_what_is_asked_for_is_counted_given_or_not_and_looking_is_not_asking() -> None:
    made = bucket()
    assert made.has(1000, 0.0)
    assert not made.has(1001, 0.0)
    made.take(700, 0.0)
    made.take(700, 0.0)
    assert made.asked == 1400
    free = TokenBucket()
    assert free.take(10**12, 0.0) == 10**12
    assert free.asked == 0, "without a quota there is nothing to share"


# Refusing unseen


def test_one_batch_above_the_burst_is_no_reason_to_look_away() -> None:
    made = bucket()
    assert made.take(1_000_000, 0.0) == 1000
    assert made.refuse_unseen(500, 0.1) == 0.0


def test_a_tenant_at_fifty_times_its_quota_is_looked_at_no_more_than_thrice_its_quota() -> None:
    made = bucket(1000.0, 1000.0)
    looked_at = given = 0
    for step in range(60_000):  # a minute with 100 readings every millisecond or so
        now = step / 1000
        if step % 2 == 0 and not made.refuse_unseen(100, now):
            looked_at += 100
            given += made.take(100, now)
    assert given == pytest.approx(60_000 + 1000, rel=0.02), "all of the quota, and the burst"
    assert looked_at <= 3 * 60_000
    assert made.asked == pytest.approx(30_000 * 100, rel=0.01), "what is refused unseen is demand too"


def test_a_tenant_within_twice_its_quota_is_always_looked_at() -> None:
    made = bucket(1000.0, 1000.0)
    for step in range(6_000):
        assert not made.refuse_unseen(15, step / 100)
        made.take(15, step / 100)


def test_a_tenant_that_calms_down_is_looked_at_again() -> None:
    made = bucket(100.0, 100.0)
    for _ in range(100):
        made.take(1000, 0.0)
    delay = made.refuse_unseen(80, 0.0)
    assert delay == pytest.approx(0.4), "at twice the rate"
    assert made.refuse_unseen(80, delay) == 0.0
    assert made.refuse_unseen(80, delay) > 0.0, "what was let through counts before it is decided on"
    assert made.refuse_unseen(80, 3.0) == 0.0
    assert TokenBucket().refuse_unseen(10**9, 0.0) == 0.0


# Devices


def rows(*slots: int) -> np.ndarray:
    return np.array(slots, np.intp)


def test_devices_have_the_common_share_unless_they_have_their_own() -> None:
    made = DeviceBuckets()
    made.configure(10.0, 4)
    made.set_shares(0.5, rows(1), np.array([1.0]))
    refused, _ = made.take(np.repeat(rows(0, 1), 120), np.ones(240, np.int64), 0.0)
    assert refused is not None
    assert [120 - int(part.sum()) for part in np.split(refused, 2)] == [50, 100]
    refused, delay = made.take(rows(0, 1), np.array([20, 20]), 2.0)
    assert refused is not None
    assert refused.tolist() == [True, False]
    assert delay == pytest.approx(2.0)
    made.configure(10.0, 8)
    assert made.shares_of(rows(0, 1, 7)).tolist() == [0.5, 1.0, 0.5]
    made.set_shares(0.5, rows(), np.empty(0))
    assert made.shares_of(rows(1)).tolist() == [0.5]


def test_the_demand_of_devices_is_counted_once() -> None:
    made = DeviceBuckets()
    made.configure(1.0, 3)
    made.take(rows(0, 2, 0), np.array([5, 7, 11]), 0.0)
    made.configure(1.0, 5)
    assert made.take_asked().tolist() == [16, 0, 7, 0, 0]
    assert not made.take_asked().any()
