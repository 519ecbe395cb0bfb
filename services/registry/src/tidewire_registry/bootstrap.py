"""Makes what a new platform needs before anybody can call it: signing key, service token, first administrator's token.

Called by `tidewire admin bootstrap`, `tidewire up` and the registry itself at its start; does nothing where things are
there and good for 30 more days. Files are in `keys/` of the data directory, mode 0600.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tidewire_kit.clock import Clock, SystemClock
from tidewire_kit.datadir import DataDir, open_data_dir, write_private
from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.identity import Role, TokenSigner, key_id_of

TOKEN_SECONDS = 365 * 86_400
_RENEW_SECONDS = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Keys:
    """Where things are, and what was made just now."""

    signing_key_file: Path
    service_token_file: Path
    admin_token_file: Path
    made: tuple[str, ...]
    """Names of the files written by this call; empty when everything was there."""


def bootstrap(data_dir: Path, *, signing_key_file: Path | None = None, clock: Clock | None = None) -> Keys:
    """Makes the missing keys and tokens, and renews tokens that end within 30 days or are of another key.

    `signing_key_file`: the platform's key is there, and is not made. Safe to call from several processes at once.
    Raises FailedPrecondition when the directory or the key cannot be used.
    """
    opened = open_data_dir(data_dir)
    clock = clock or SystemClock()
    lock = os.open(opened.keys / "bootstrap.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _bootstrap(opened, signing_key_file, clock)
    finally:
        os.close(lock)


def _bootstrap(data_dir: DataDir, signing_key_file: Path | None, clock: Clock) -> Keys:
    made: list[str] = []
    key_file = signing_key_file or data_dir.signing_key_file
    if signing_key_file is None and not key_file.exists():
        write_private(key_file, new_signing_key())
        made.append(key_file.name)
    signer = read_signer(key_file, clock)
    for file, subject, role in (
        (data_dir.service_token_file, "tidewire-service", Role.SERVICE),
        (data_dir.admin_token_file, "admin", Role.PLATFORM_ADMIN),
    ):
        if not _holds(file, signer, clock):
            token = signer.sign_user(subject, None, frozenset({role}), TOKEN_SECONDS).token
            write_private(file, token.encode() + b"\n")
            made.append(file.name)
    return Keys(key_file, data_dir.service_token_file, data_dir.admin_token_file, tuple(made))


def read_signer(file: Path, clock: Clock) -> TokenSigner:
    """The signer of a key file. FailedPrecondition when it cannot be read or is no P-256 private key."""
    try:
        pem = file.read_bytes()
    except OSError as error:
        raise _bad_key(str(file), f"cannot be read: {error.strerror}") from None
    return signer_of(pem, str(file), clock)


def signer_of(pem: bytes, source: str, clock: Clock) -> TokenSigner:
    """The signer of a key; `source` names it in the error. FailedPrecondition when it is no P-256 private key."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _bad_key(source, "is not an unencrypted private key in PEM form") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad_key(source, "is not a P-256 key")
    return TokenSigner(key, key_id_of(key.public_key()), clock)


def new_signing_key() -> bytes:
    """A new ES256 key, PEM."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def _bad_key(source: str, why: str) -> FailedPrecondition:
    remedy = "set TIDEWIRE_SIGNING_KEY_FILE to one, for example of `openssl ecparam -genkey -name prime256v1 -noout`"
    return FailedPrecondition(
        f"the signing key {source} {why}; {remedy}", reason="SIGNING_KEY_UNUSABLE", subject=source
    )


def _holds(file: Path, signer: TokenSigner, clock: Clock) -> bool:
    """Whether the file has a token of this key that holds for 30 more days."""
    try:
        ends = token_ends_at(file.read_bytes(), signer)
    except OSError:
        return False
    return ends is not None and ends > clock.now_us() // 1_000_000 + _RENEW_SECONDS


def token_ends_at(held: bytes, signer: TokenSigner) -> int | None:
    """The unix seconds at which a token ends; None: it is no token of this key."""
    try:
        token = held.decode().strip()
        claims = jwt.decode(
            token,
            signer.public_key_pem,
            algorithms=["ES256"],
            options={"verify_exp": False, "verify_aud": False, "verify_iat": False},
        )
        ends = int(claims["exp"])
        return ends if jwt.get_unverified_header(token).get("kid") == signer.key_id else None
    except (UnicodeDecodeError, jwt.PyJWTError, KeyError, TypeError, ValueError):
        return None


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
