"""Verifies bearer tokens offline, from the directory. Every server asks it for every call.

The hot path is one dictionary look-up by the raw header and two comparisons. Signatures are checked once per token;
after a restrictive change (`Directory.generation`) a known token is only admitted anew: are its key, tenant and device
still there and not blocked? What a caller may do is decided elsewhere, by the access table and the use cases.

    unknown token → parse → key by `kid` → algorithm must be the key's own → signature → claims → admission → cached
"""

from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tidewire_kit.clock import Clock
from tidewire_kit.directory.replica import Directory
from tidewire_kit.directory.views import CredentialView, PublicKey, TenantView
from tidewire_kit.errors import InvalidArgument, Unauthenticated, Unavailable
from tidewire_kit.identity.caller import USER_ROLES, Admission, Caller, Role, publisher_uid_of
from tidewire_kit.identity.claims import (
    AUDIENCE,
    DEVICE_TOKEN_SECONDS,
    ISSUER,
    LEEWAY_US,
    MAX_TOKEN_CHARACTERS,
)
from tidewire_kit.ids import TenantId, parse_uid

_CACHED_TOKENS: Final = 100_000
_CACHED_CHARACTERS = 64 << 20
"""Of all cached tokens together: a device may sign as many long ones as it likes."""
_DEVICE_ROLES = frozenset({Role.DEVICE})
_SERVICE_ROLES = frozenset({Role.SERVICE})


class TokenVerifier:
    """One per process; not for several threads."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._known: dict[str, Caller] = {}
        self._known_characters = 0

    def verify(self, token: str) -> Caller:
        """Returns who a token stands for; the same object while it is cached. Raises as `verify_authorization`."""
        return self.verify_authorization(f"Bearer {token}")

    def verify_authorization(self, authorization: str) -> Caller:
        """Returns who the value of an `authorization` header stands for.

        Raises Unauthenticated, with reason TOKEN_MISSING, TOKEN_MALFORMED, TOKEN_EXPIRED, TOKEN_NOT_YET_VALID,
        TOKEN_BAD_SIGNATURE, TOKEN_ALGORITHM, TOKEN_UNKNOWN_KEY, TOKEN_CLAIMS, TOKEN_LIFETIME, CREDENTIAL_EXPIRED,
        TENANT_UNKNOWN, TENANT_BLOCKED, DEVICE_UNKNOWN or DEVICE_BLOCKED; Unavailable (REGISTRY_STALE) when the key is
        not known and the registry has not been heard of lately.
        """
        caller = self._known.get(authorization)
        if caller is None:
            caller = self._learn(authorization)
        self.check(caller)
        return caller

    def check(self, caller: Caller) -> None:
        """Raises as `verify_authorization` when the token that `caller` came from holds no longer.

        For each message of an open stream: two comparisons unless something was blocked or removed meanwhile.
        """
        admission = caller.admission
        if admission is not None and admission.generation != self._directory.generation:
            self._admit(caller, admission)
        if caller.expires_at_us <= self._clock.now_us():
            raise _expired()

    # Inside

    def _learn(self, authorization: str) -> Caller:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(
                "send the metadata `authorization: Bearer TOKEN`; `tidewire token create` makes one",
                reason="TOKEN_MISSING",
            )
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise _malformed()
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise _malformed() from None
        key_id, algorithm = header.get("kid"), header.get("alg")
        if not isinstance(key_id, str) or not isinstance(algorithm, str):
            raise _malformed()
        signing_key = self._directory.signing_key(key_id)
        if signing_key is not None:
            claims = self._claims(token, signing_key.public_key, algorithm)
            caller = self._user(claims, Admission(key_id, None, -1))
        else:
            credential = self._credential(key_id)
            claims = self._claims(token, credential.public_key, algorithm)
            caller = self._device(claims, credential, Admission(key_id, credential.uid, -1))
        self._known[authorization] = caller
        self._known_characters += len(authorization)
        while len(self._known) > _CACHED_TOKENS or self._known_characters > _CACHED_CHARACTERS:
            oldest = next(iter(self._known))
            self._known_characters -= len(oldest)
            del self._known[oldest]
        return caller

    def _credential(self, key_id: str) -> CredentialView:
        try:
            credential = self._directory.credential(parse_uid(key_id))
        except InvalidArgument:
            credential = None
        if credential is None:
            raise self._unknown_key()
        return credential

    def _unknown_key(self) -> Unauthenticated | Unavailable:
        if not self._directory.fresh:
            # The key may be one that this process could not yet hear of, so this is no verdict on the token.
            return Unavailable(
                "registry",
                "the token's key is not known here and the registry is silent",
                reason="REGISTRY_STALE",
            )
        return Unauthenticated(
            "no key of this `kid` is registered; it was removed, or the token is of another platform",
            reason="TOKEN_UNKNOWN_KEY",
        )

    def _claims(self, token: str, key: PublicKey, algorithm: str) -> dict[str, Any]:
        """The claims of a token with a good signature that is for us and in its time."""
        expected = "EdDSA" if isinstance(key, Ed25519PublicKey) else "ES256"
        if algorithm != expected:
            # Decided by the key, never by the token: otherwise `none`, or a MAC keyed with the public key, would pass.
            raise Unauthenticated(f"sign with {expected}, the algorithm of the key", reason="TOKEN_ALGORITHM")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[expected],
                audience=AUDIENCE,
                options={
                    "require": ["exp", "iat", "aud", "iss", "sub"],
                    "verify_exp": False,  # by our own clock, below
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidSignatureError:
            raise Unauthenticated("the signature is not the key's", reason="TOKEN_BAD_SIGNATURE") from None
        except (jwt.MissingRequiredClaimError, jwt.InvalidAudienceError) as error:
            raise _bad_claims(str(error)) from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _malformed() from None
        now = self._clock.now_us()
        issued, expires = _time_us(claims, "iat"), _time_us(claims, "exp")
        if max(issued, _time_us(claims, "nbf") if "nbf" in claims else issued) > now + LEEWAY_US:
            raise Unauthenticated(
                "the token is not valid yet; check the signer's clock", reason="TOKEN_NOT_YET_VALID"
            )
        if expires <= now:
            raise _expired()
        if not isinstance(claims["sub"], str) or not isinstance(claims["iss"], str):
            raise _bad_claims("`sub` and `iss` must be text")
        return claims

    def _user(self, claims: dict[str, Any], admission: Admission) -> Caller:
        if claims["iss"] != ISSUER:
            raise _bad_claims(f"`iss` must be {ISSUER}")
        named = claims.get("roles")
        if not isinstance(named, list):
            raise _bad_claims("`roles` must be a list")
        # A role that only a newer version knows grants nothing here.
        roles = frozenset(role for role in USER_ROLES if role.value in named)
        tenant: TenantId | None = None
        tenant_id = ""
        if "tid" in claims:
            if not isinstance(claims["tid"], str):
                raise _bad_claims("`tid` must be a tenant's uid")
            try:
                tenant = TenantId(parse_uid(claims["tid"], field="tid"))
            except InvalidArgument:
                raise _bad_claims("`tid` must be a tenant's uid") from None
            tenant_id = self._tenant(tenant).id
        subject: str = claims["sub"]
        return Caller(
            kind="service" if roles == _SERVICE_ROLES else "user",
            subject=subject,
            roles=roles,
            tenant=tenant,
            tenant_id=tenant_id,
            device_uid=None,
            device_id="",
            publisher_uid=publisher_uid_of(tenant, subject),
            expires_at_us=_time_us(claims, "exp"),
            admission=admission,
        )

    def _device(self, claims: dict[str, Any], credential: CredentialView, admission: Admission) -> Caller:
        if _time_us(claims, "exp") - _time_us(claims, "iat") > DEVICE_TOKEN_SECONDS * 1_000_000:
            raise Unauthenticated(
                f"a device's token may hold for {DEVICE_TOKEN_SECONDS} s at most; sign a shorter one",
                reason="TOKEN_LIFETIME",
            )
        tenant = self._tenant(credential.tenant)
        slot = tenant.devices.slot_by_uid.get(credential.device_uid)
        if slot is None:
            raise _device_unknown()
        device_id = tenant.devices.names[slot]
        if not claims["iss"] == claims["sub"] == device_id:
            raise _bad_claims("`iss` and `sub` must be the id of the device that the key belongs to")
        expires = _time_us(claims, "exp")
        if credential.expires_at_us is not None:
            expires = min(expires, credential.expires_at_us)
        return Caller(
            kind="device",
            subject=device_id,
            roles=_DEVICE_ROLES,
            tenant=credential.tenant,
            tenant_id=tenant.id,
            device_uid=credential.device_uid,
            device_id=device_id,
            publisher_uid=credential.device_uid,
            expires_at_us=expires,
            admission=admission,
        )

    def _admit(self, caller: Caller, admission: Admission) -> None:
        """Checks everything that a change of the directory can take away, and notes the generation it holds for."""
        generation = self._directory.generation
        if admission.credential is None:
            if self._directory.signing_key(admission.key_id) is None:
                raise self._unknown_key()
        else:
            credential = self._directory.credential(admission.credential)
            if credential is None:
                raise self._unknown_key()
            if credential.expires_at_us is not None and credential.expires_at_us <= self._clock.now_us():
                raise Unauthenticated(
                    "the credential has expired; register a new one", reason="CREDENTIAL_EXPIRED"
                )
        if caller.tenant is not None:
            tenant = self._tenant(caller.tenant)
            if caller.device_uid is not None:
                slot = tenant.devices.slot_by_uid.get(caller.device_uid)
                if slot is None:
                    raise _device_unknown()
                if not tenant.devices.admitted[slot]:
                    raise Unauthenticated("the device is blocked; ask its operator", reason="DEVICE_BLOCKED")
        admission.generation = generation

    def _tenant(self, tenant: TenantId) -> TenantView:
        """The tenant of this uid, if it is in use. A deleted one does not come back under its name: uids differ."""
        view = self._directory.tenant(tenant)
        if view is None or view.deleted or view.revision < 0:
            raise Unauthenticated("the token's tenant does not exist (any more)", reason="TENANT_UNKNOWN")
        if not view.active:
            raise Unauthenticated(
                "the tenant is blocked; ask the platform's operator", reason="TENANT_BLOCKED"
            )
        return view


def _time_us(claims: dict[str, Any], name: str) -> int:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise _bad_claims(f"`{name}` must be a time in seconds")
    return int(value * 1_000_000)


def _expired() -> Unauthenticated:
    return Unauthenticated("the token has expired; get a new one", reason="TOKEN_EXPIRED")


def _malformed() -> Unauthenticated:
    return Unauthenticated("the token is not a JWT with `alg` and `kid`", reason="TOKEN_MALFORMED")


def _bad_claims(why: str) -> Unauthenticated:
    return Unauthenticated(f"the token's claims are wrong: {why}", reason="TOKEN_CLAIMS")


def _device_unknown() -> Unauthenticated:
    return Unauthenticated("the token's device does not exist (any more)", reason="DEVICE_UNKNOWN")
