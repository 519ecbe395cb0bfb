"""The keys of a platform as a set: what is missing is made to fit what is there."""

import pytest

from tidewire_kit.errors import FailedPrecondition
from tidewire_registry.bootstrap import signer_of, token_ends_at
from tidewire_registry.key_set import ADMIN_TOKEN, SERVICE_TOKEN, SIGNING_KEY, ends_of_tokens, missing_keys
from tidewire_testkit.clock import ManualClock

DAY_SECONDS = 86_400


def test_a_whole_set_lacks_nothing_and_is_never_renewed() -> None:
    clock = ManualClock()
    whole = missing_keys({}, clock)
    assert whole.keys() == {SIGNING_KEY, SERVICE_TOKEN, ADMIN_TOKEN}
    assert missing_keys(whole, clock) == {}
    clock.advance(400 * DAY_SECONDS)
    assert missing_keys(whole, clock) == {}
    ends = ends_of_tokens(whole, clock)
    assert ends.keys() == {SERVICE_TOKEN, ADMIN_TOKEN}
    assert max(ends.values()) < clock.now_us() / 1e6


@pytest.mark.parametrize("name", [SERVICE_TOKEN, ADMIN_TOKEN])
@pytest.mark.parametrize("empty", [True, False])
def test_a_missing_token_is_signed_by_the_key_that_is_there(name: str, empty: bool) -> None:
    clock = ManualClock()
    held = missing_keys({}, clock)
    held = {**held, name: b""} if empty else {key: value for key, value in held.items() if key != name}
    made = missing_keys(held, clock)
    assert made.keys() == {name}
    assert token_ends_at(made[name], signer_of(held[SIGNING_KEY], "test", clock)) is not None


def test_tokens_that_do_not_fit_the_key_are_refused() -> None:
    clock = ManualClock()
    one, other = missing_keys({}, clock), missing_keys({}, clock)
    for held in (
        {**one, SIGNING_KEY: other[SIGNING_KEY]},
        {SERVICE_TOKEN: one[SERVICE_TOKEN]},
        {**one, ADMIN_TOKEN: b"\xff not a token"},
    ):
        with pytest.raises(FailedPrecondition) as caught:
            missing_keys(held, clock)
        assert caught.value.reason == "KEYS_MISMATCH"
        for secret in (*one.values(), *other.values()):
            assert secret.decode().strip() not in caught.value.message


def test_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        missing_keys({SIGNING_KEY: b"not a key"}, ManualClock())
    assert caught.value.reason == "SIGNING_KEY_UNUSABLE"
