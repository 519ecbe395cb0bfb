"""Signs the tokens of users and services. Only the registry holds the platform's private key, so only it uses this."""

import uuid
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tidewire_kit.clock import Clock
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.identity.caller import USER_ROLES, Role
from tidewire_kit.identity.claims import AUDIENCE, ISSUER
from tidewire_kit.ids import TenantId

SIGNING_ALGORITHM = "ES256"


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A token and its end. `str` of it does not show the token."""

    token: str
    expires_at_us: int

    def __repr__(self) -> str:
        return f"SignedToken(expires_at_us={self.expires_at_us})"


class TokenSigner:
    """Signs with one key. `key_id` is the `kid` under which the public key is on `tidewire.registry.v1`."""

    def __init__(self, private_key: ec.EllipticCurvePrivateKey, key_id: str, clock: Clock) -> None:
        self._key = private_key
        self._clock = clock
        self.key_id = key_id

    @property
    def public_key_pem(self) -> str:
        """The public key, PEM (SubjectPublicKeyInfo)."""
        return _public_pem(self._key.public_key())

    def sign_user(
        self, subject: str, tenant: TenantId | None, roles: frozenset[Role], ttl_seconds: float
    ) -> SignedToken:
        """Returns a token of a user or service. `tenant` None: a platform administrator or a service.

        Raises InvalidArgument for roles that no token may name.
        """
        if not roles or not roles <= USER_ROLES:
            raise InvalidArgument("roles", f"must be some of {', '.join(sorted(USER_ROLES))}")
        now = self._clock.now_us() // 1_000_000
        expires = now + int(ttl_seconds)
        claims: dict[str, object] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "roles": sorted(roles),
            "iat": now,
            "exp": expires,
            "jti": uuid.uuid4().hex,
        }
        if tenant is not None:
            claims["tid"] = tenant.hex()
        token = jwt.encode(claims, self._key, algorithm=SIGNING_ALGORITHM, headers={"kid": self.key_id})
        return SignedToken(token, expires * 1_000_000)


def key_id_of(public_key: ec.EllipticCurvePublicKey) -> str:
    """Returns the `kid` of a signing key: 16 hexadecimal digits of the SHA-256 of its PEM."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(_public_pem(public_key).encode())
    return digest.finalize().hex()[:16]


def _public_pem(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
