"""Tokens for tests: a platform's signer, devices' key pairs, and tokens with any claims, also wrong ones."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tidewire_kit.clock import Clock
from tidewire_kit.identity import Role, TokenSigner, key_id_of
from tidewire_kit.identity.claims import AUDIENCE
from tidewire_kit.ids import TenantId

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def new_signer(clock: Clock) -> TokenSigner:
    """Returns a signer with a new ES256 key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return TokenSigner(key, key_id_of(key.public_key()), clock)


def user_token(
    signer: TokenSigner,
    tenant: TenantId | None,
    *roles: Role,
    subject: str = "somebody",
    ttl_seconds: float = 3600,
) -> str:
    """Returns a user's or service's token."""
    return signer.sign_user(subject, tenant, frozenset(roles), ttl_seconds).token


def new_device_key(algorithm: str = "EdDSA") -> PrivateKey:
    """Returns a new Ed25519 (`EdDSA`) or P-256 (`ES256`) key."""
    return (
        ed25519.Ed25519PrivateKey.generate()
        if algorithm == "EdDSA"
        else ec.generate_private_key(ec.SECP256R1())
    )


def public_pem(key: PrivateKey) -> str:
    """Returns the public half, PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def device_token(
    key: PrivateKey,
    credential_uid: bytes,
    device_id: str,
    clock: Clock,
    *,
    lifetime_seconds: float = 600,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """Returns a token as a device signs it; `claims` replace or add to the right ones (None removes one)."""
    now = clock.now_us() / 1e6
    right: dict[str, Any] = {
        "iss": device_id,
        "sub": device_id,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + lifetime_seconds,
    }
    return signed(key, credential_uid.hex(), {**right, **(claims or {})})


def signed(key: PrivateKey, key_id: str, claims: Mapping[str, Any], algorithm: str | None = None) -> str:
    """Returns a token with exactly these claims, those that are None left out."""
    algorithm = algorithm or ("EdDSA" if isinstance(key, ed25519.Ed25519PrivateKey) else "ES256")
    shown = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(shown, key, algorithm=algorithm, headers={"kid": key_id})


def unsigned(key_id: str, claims: Mapping[str, Any]) -> str:
    """Returns a token with `alg` `none` and an empty signature."""
    return f"{_part({'alg': 'none', 'typ': 'JWT', 'kid': key_id})}.{_part(claims)}."


def mac_over_public_key(key_pem: str, key_id: str, claims: Mapping[str, Any]) -> str:
    """Returns a token with an HMAC keyed with a public key: whoever trusts the header's `alg` would accept it."""
    body = f"{_part({'alg': 'HS256', 'typ': 'JWT', 'kid': key_id})}.{_part(claims)}"
    return f"{body}.{_base64(hmac.new(key_pem.encode(), body.encode(), hashlib.sha256).digest())}"


def _part(value: Mapping[str, Any]) -> str:
    return _base64(json.dumps(dict(value)).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
