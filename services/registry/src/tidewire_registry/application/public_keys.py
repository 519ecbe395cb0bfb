"""Reads the public keys that callers register for devices. Only public keys are taken, and none is echoed in errors."""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from tidewire_kit.errors import InvalidArgument
from tidewire_registry.domain.credentials import Algorithm

MAX_PEM_CHARACTERS = 1_000
_FIELD = "credential.public_key_pem"
_HOW = "give an Ed25519 or P-256 public key as PEM, for example of `openssl pkey -in KEY.pem -pubout`"


def read_public_key(pem: str) -> tuple[str, Algorithm]:
    """The key in its usual PEM form, and its kind. Raises InvalidArgument for anything but one public key."""
    if not pem.strip():
        raise InvalidArgument(_FIELD, f"is empty; {_HOW}")
    if "PRIVATE KEY" in pem:
        why = (
            "holds a PRIVATE key, which was not stored; it must stay on the device, so make a new pair if this one"
            f" was sent over a network, and {_HOW}"
        )
        raise InvalidArgument(_FIELD, why, reason="PRIVATE_KEY_REFUSED")
    if len(pem) > MAX_PEM_CHARACTERS or pem.count("-----BEGIN") > 1:
        raise InvalidArgument(_FIELD, f"is not one public key; {_HOW}")
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidArgument(_FIELD, f"is not a public key in PEM form; {_HOW}") from None
    if isinstance(key, Ed25519PublicKey):
        algorithm = Algorithm.ED25519
    elif isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        algorithm = Algorithm.ES256
    else:
        raise InvalidArgument(_FIELD, f"is a key of another kind; {_HOW}")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(), algorithm
