"""Key pairs of devices: made and kept on the caller's side, because the platform never sees a private key.

Called by `DeviceKey` and by `tidewire credential create --generate`.
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tidewire_client.errors import InvalidArgument

type PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def generate_private_key(algorithm: str = "ed25519") -> PrivateKey:
    """A new private key; `algorithm` is `ed25519` or `es256`."""
    match algorithm.lower():
        case "ed25519" | "eddsa":
            return ed25519.Ed25519PrivateKey.generate()
        case "es256" | "p-256":
            return ec.generate_private_key(ec.SECP256R1())
    raise InvalidArgument(f"'{algorithm}' is not an algorithm; use ed25519 or es256", field="algorithm")


def public_key_pem(key: PrivateKey) -> str:
    """The public half, PEM (SubjectPublicKeyInfo), as the registry takes it."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode("ascii")
    )


def save_private_key(key: PrivateKey, path: str | os.PathLike[str]) -> None:
    """Writes the key as PKCS#8 PEM to a new file that only its owner may read. InvalidArgument if it exists."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidArgument(
            f"{target} exists and is left as it is; name another file or remove it", field="key_file"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)


def load_private_key(path: str | os.PathLike[str]) -> PrivateKey:
    """Reads an Ed25519 or P-256 private key from a PEM file. Raises InvalidArgument for anything else."""
    try:
        pem = Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgument(
            f"the key file {path} cannot be read: {error.strerror}", field="key_file"
        ) from error
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidArgument(
            f"{path} is not a PEM private key without a password", field="key_file"
        ) from error
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise InvalidArgument(f"{path} holds neither an Ed25519 nor a P-256 key", field="key_file")
