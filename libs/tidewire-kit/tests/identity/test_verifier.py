"""Tokens: every way in which one can be wrong, and what a change of the directory does to good ones."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tidewire.registry.v1.resources_pb2 import Device, Tenant
from tidewire_kit.clock import SystemClock
from tidewire_kit.errors import InvalidArgument, Unauthenticated, Unavailable
from tidewire_kit.identity import Role, TokenSigner, publisher_uid_of, verifier
from tidewire_kit.ids import new_uid
from tidewire_testkit.clock import ManualClock
from tidewire_testkit.directory import TestCredential, TestTenant, World, key_change
from tidewire_testkit.tokens import (
    mac_over_public_key,
    new_device_key,
    new_signer,
    public_pem,
    signed,
    unsigned,
    user_token,
)


@pytest.fixture
def tenant(world: World) -> TestTenant:
    return world.add_tenant("acme")


@pytest.fixture
def credential(world: World, tenant: TestTenant) -> TestCredential:
    return world.add_credential(world.add_device(tenant, "pump"))


def refused(world: World, token: str) -> str:
    """The reason for which a token is refused, twice: the second time it must not be cached as good."""
    reasons = set()
    for _ in range(2):
        with pytest.raises(Unauthenticated) as caught:
            world.verifier.verify(token)
        reasons.add(caught.value.reason)
        assert not token or token not in caught.value.message
    assert len(reasons) == 1
    return reasons.pop()


def test_a_user(world: World, tenant: TestTenant, clock: ManualClock) -> None:
    caller = world.verifier.verify(world.token(tenant, Role.OPERATOR, Role.READER, ttl_seconds=60))
    assert (caller.kind, caller.subject, caller.tenant, caller.tenant_id) == (
        "user",
        "somebody",
        tenant.uid,
        "acme",
    )
    assert caller.roles == {Role.OPERATOR, Role.READER}
    assert caller.publisher_uid == publisher_uid_of(tenant.uid, "somebody")
    assert len(caller.publisher_uid) == 16
    assert caller.expires_at_us == clock.now_us() + 60_000_000
    assert caller.device_uid is None


def test_an_administrator_and_a_service_have_no_tenant(world: World) -> None:
    admin = world.verifier.verify(world.token(None, Role.PLATFORM_ADMIN))
    service = world.verifier.verify(world.token(None, Role.SERVICE))
    assert (admin.kind, admin.tenant, admin.tenant_id) == ("user", None, "")
    assert service.kind == "service"


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256"])
def test_a_device(world: World, tenant: TestTenant, algorithm: str) -> None:
    device = world.add_device(tenant, "A4:CF:12")
    token = world.device_token(world.add_credential(device, algorithm))
    caller = world.verifier.verify(token)
    assert (caller.kind, caller.device_id, caller.device_uid) == ("device", "A4:CF:12", device.uid)
    assert caller.roles == {Role.DEVICE}
    assert caller.publisher_uid == device.uid
    assert world.verifier.verify(token) is caller


def _claims(world: World, **claims: Any) -> dict[str, Any]:
    now = world.clock.now_us() // 1_000_000
    right = {
        "iss": "tidewire",
        "aud": "tidewire",
        "sub": "eve",
        "roles": ["reader"],
        "iat": now,
        "exp": now + 60,
    }
    return {**right, **claims}


def _signed(world: World, **claims: Any) -> str:
    return signed(world.signer._key, world.signer.key_id, _claims(world, **claims))


WRONG: list[tuple[str, Callable[[World], str], str]] = [
    ("nothing", lambda world: "", "TOKEN_MISSING"),
    ("no token at all", lambda world: "rubbish", "TOKEN_MALFORMED"),
    ("three dots", lambda world: "a.b.c", "TOKEN_MALFORMED"),
    ("huge", lambda world: "x" * 10_000, "TOKEN_MALFORMED"),
    ("alg none", lambda world: unsigned(world.signer.key_id, _claims(world)), "TOKEN_ALGORITHM"),
    (
        "HMAC over the public key",
        lambda world: mac_over_public_key(world.signer.public_key_pem, world.signer.key_id, _claims(world)),
        "TOKEN_ALGORITHM",
    ),
    (
        "another key under our kid",
        lambda world: signed(new_device_key("ES256"), world.signer.key_id, _claims(world)),
        "TOKEN_BAD_SIGNATURE",
    ),
    (
        "a key of another kind under our kid",
        lambda world: signed(new_device_key("EdDSA"), world.signer.key_id, _claims(world)),
        "TOKEN_ALGORITHM",
    ),
    (
        "unknown key",
        lambda world: user_token(new_signer(world.clock), None, Role.READER),
        "TOKEN_UNKNOWN_KEY",
    ),
    ("expired", lambda world: _signed(world, exp=world.clock.now_us() // 1_000_000), "TOKEN_EXPIRED"),
    (
        "issued in the future",
        lambda world: _signed(world, iat=world.clock.now_us() / 1e6 + 31),
        "TOKEN_NOT_YET_VALID",
    ),
    ("not before", lambda world: _signed(world, nbf=world.clock.now_us() / 1e6 + 31), "TOKEN_NOT_YET_VALID"),
    ("other audience", lambda world: _signed(world, aud="elsewhere"), "TOKEN_CLAIMS"),
    ("no audience", lambda world: _signed(world, aud=None), "TOKEN_CLAIMS"),
    ("other issuer", lambda world: _signed(world, iss="eve"), "TOKEN_CLAIMS"),
    ("no expiry", lambda world: _signed(world, exp=None), "TOKEN_CLAIMS"),
    ("expiry in words", lambda world: _signed(world, exp="soon"), "TOKEN_CLAIMS"),
    ("expiry too large", lambda world: _signed(world, exp=1e300), "TOKEN_CLAIMS"),
    ("roles in words", lambda world: _signed(world, roles="platform-admin"), "TOKEN_CLAIMS"),
    ("tenant no uid", lambda world: _signed(world, tid="acme"), "TOKEN_CLAIMS"),
    ("unknown tenant", lambda world: _signed(world, tid=new_uid().hex()), "TENANT_UNKNOWN"),
]


@pytest.mark.parametrize(("make", "reason"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_user_token_is_refused(world: World, make: Callable[[World], str], reason: str) -> None:
    assert refused(world, make(world)) == reason


def test_a_clock_half_a_minute_ahead_is_forgiven(world: World) -> None:
    assert world.verifier.verify(_signed(world, iat=world.clock.now_us() / 1e6 + 29)).subject == "eve"


def test_a_role_that_nobody_may_claim_grants_nothing(world: World) -> None:
    assert world.verifier.verify(_signed(world, roles=["device", "emperor"])).roles == frozenset()


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub": "other"}, "TOKEN_CLAIMS"),
        ({"iss": "other"}, "TOKEN_CLAIMS"),
        ({"iss": "tidewire", "sub": "pump"}, "TOKEN_CLAIMS"),
        ({"aud": "elsewhere"}, "TOKEN_CLAIMS"),
        ({"iat": None}, "TOKEN_CLAIMS"),
    ],
)
def test_a_wrong_device_token_is_refused(
    world: World, credential: TestCredential, claims: dict[str, Any], reason: str
) -> None:
    assert refused(world, world.device_token(credential, **claims)) == reason


def test_a_device_token_of_more_than_an_hour_is_refused(
    world: World, credential: TestCredential, clock: ManualClock
) -> None:
    now = clock.now_us() // 1_000_000
    assert world.verifier.verify(world.device_token(credential, iat=now, exp=now + 3600)).device_id == "pump"
    assert refused(world, world.device_token(credential, iat=now, exp=now + 3601)) == "TOKEN_LIFETIME"
    # Nor one that says it was issued later than it was, to last longer from now.
    assert (
        refused(world, world.device_token(credential, iat=now + 3000, exp=now + 6000))
        == "TOKEN_NOT_YET_VALID"
    )


def test_a_device_cannot_name_a_role_or_a_tenant(world: World, credential: TestCredential) -> None:
    other = world.add_tenant("other")
    token = world.device_token(credential, roles=["platform-admin"], tid=other.uid.hex())
    caller = world.verifier.verify(token)
    assert caller.roles == {Role.DEVICE}
    assert caller.tenant_id == "acme"


def test_a_device_signed_token_under_the_platforms_kid_is_refused(
    world: World, credential: TestCredential
) -> None:
    assert refused(world, signed(credential.key, world.signer.key_id, _claims(world))) == "TOKEN_ALGORITHM"


def test_a_mac_over_a_devices_public_key_is_refused(world: World, credential: TestCredential) -> None:
    token = mac_over_public_key(public_pem(credential.key), credential.uid.hex(), _claims(world))
    assert refused(world, token) == "TOKEN_ALGORITHM"


def test_a_deleted_tenant_of_the_same_name_stays_out(world: World, tenant: TestTenant) -> None:
    token = world.token(tenant, Role.TENANT_ADMIN)
    assert world.verifier.verify(token).tenant == tenant.uid
    world.delete_tenant(tenant)
    again = world.add_tenant("acme")
    assert refused(world, token) == "TENANT_UNKNOWN"
    assert world.verifier.verify(world.token(again, Role.TENANT_ADMIN)).tenant == again.uid


def test_a_known_token_ends_with_its_time(world: World, tenant: TestTenant, clock: ManualClock) -> None:
    token = world.token(tenant, Role.READER, ttl_seconds=60)
    caller = world.verifier.verify(token)
    clock.advance(59.9)
    world.verifier.check(caller)
    clock.advance(0.2)
    with pytest.raises(Unauthenticated):
        world.verifier.check(caller)
    assert refused(world, token) == "TOKEN_EXPIRED"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w, t, c: w.set_tenant_state(t, Tenant.BLOCKED), "TENANT_BLOCKED"),
        (lambda w, t, c: w.set_tenant_state(t, Tenant.DELETING), "TENANT_UNKNOWN"),
        (lambda w, t, c: w.delete_tenant(t), "TENANT_UNKNOWN"),
        (lambda w, t, c: w.set_device_state(c.device, Device.BLOCKED), "DEVICE_BLOCKED"),
        (lambda w, t, c: w.set_device_state(c.device, Device.QUARANTINED), "DEVICE_BLOCKED"),
        (lambda w, t, c: w.delete_device(c.device), "DEVICE_UNKNOWN"),
        (lambda w, t, c: w.delete_credential(c), "TOKEN_UNKNOWN_KEY"),
    ],
)
def test_what_is_taken_away_holds_at_once_also_for_open_streams(
    world: World, tenant: TestTenant, credential: TestCredential, change: Callable[..., None], reason: str
) -> None:
    token = world.device_token(credential)
    caller = world.verifier.verify(token)
    world.verifier.check(caller)
    change(world, tenant, credential)
    with pytest.raises(Unauthenticated) as caught:
        world.verifier.check(caller)
    assert caught.value.reason == reason
    assert refused(world, token) == reason


def test_a_block_that_ends_lets_the_same_token_in_again(
    world: World, tenant: TestTenant, credential: TestCredential
) -> None:
    token = world.device_token(credential)
    world.verifier.verify(token)
    world.set_device_state(credential.device, Device.BLOCKED)
    assert refused(world, token) == "DEVICE_BLOCKED"
    world.set_device_state(credential.device, Device.ACTIVE)
    assert world.verifier.verify(token).device_id == "pump"


def test_a_removed_signing_key_ends_its_tokens(world: World, tenant: TestTenant) -> None:
    token = world.token(tenant, Role.READER)
    world.verifier.verify(token)
    second = new_signer(world.clock)
    world.directory.apply(key_change(second))
    world.directory.apply(key_change(world.signer, revision=2, deleted=True))
    assert refused(world, token) == "TOKEN_UNKNOWN_KEY"
    assert world.verifier.verify(user_token(second, tenant.uid, Role.READER)).tenant == tenant.uid


def test_a_credential_ends_with_its_time(world: World, tenant: TestTenant, clock: ManualClock) -> None:
    device = world.add_device(tenant, "pump")
    credential = world.add_credential(device, expires_at_us=clock.now_us() + 10_000_000)
    token = world.device_token(credential)
    caller = world.verifier.verify(token)
    assert caller.expires_at_us == clock.now_us() + 10_000_000
    clock.advance(10)
    with pytest.raises(Unauthenticated):
        world.verifier.check(caller)
    assert refused(world, world.device_token(credential)) == "CREDENTIAL_EXPIRED"


def test_an_unknown_key_is_no_verdict_while_the_registry_is_silent(world: World, clock: ManualClock) -> None:
    token = user_token(new_signer(clock), None, Role.READER)
    clock.advance(9)
    with pytest.raises(Unavailable):
        world.verifier.verify(token)


def test_only_users_roles_are_signed(world: World, tenant: TestTenant) -> None:
    signer: TokenSigner = world.signer
    with pytest.raises(InvalidArgument, match="roles"):
        signer.sign_user("eve", tenant.uid, frozenset({Role.DEVICE}), 60)
    with pytest.raises(InvalidArgument, match="roles"):
        signer.sign_user("eve", tenant.uid, frozenset(), 60)
    assert "ey" not in repr(signer.sign_user("eve", tenant.uid, frozenset({Role.READER}), 60))


def test_a_known_token_costs_next_to_nothing() -> None:
    world = World(SystemClock())
    value = f"Bearer {world.token(world.add_tenant('acme'), Role.READER)}"
    world.verifier.verify_authorization(value)
    began = time.perf_counter()
    for _ in range(10_000):
        world.verifier.verify_authorization(value)
    print(f"{(time.perf_counter() - began) / 10_000 * 1e6:.2f} µs for a known token")


def test_the_cache_is_bounded_in_characters_too(
    world: World, credential: TestCredential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device signs as many tokens as it likes, and as long ones."""
    monkeypatch.setattr(verifier, "_CACHED_CHARACTERS", 20_000, raising=False)
    tokens = [world.device_token(credential, padding=f"{n:04}" + "x" * 4000) for n in range(20)]
    callers = [world.verifier.verify(token) for token in tokens]
    assert sum(map(len, world.verifier._known)) <= 20_000
    assert world.verifier.verify(tokens[-1]) is callers[-1]
    assert world.verifier.verify(tokens[0]).device_uid == credential.device.uid
