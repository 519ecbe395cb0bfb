"""Where the token of a call comes from: a string, a file that somebody rotates, or a device's own private key.

Connections ask their source before each call, so that a rotated file or an expired device token needs no restart.
"""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tidewire_client.errors import InvalidArgument

if TYPE_CHECKING:  # a library of cryptography is a third of the SDK's start, and only devices need it
    from tidewire_client.keys import PrivateKey

AUDIENCE = "tidewire"
DEVICE_TOKEN_SECONDS = 3600
_RENEW_BEFORE_END = 0.2


class TokenSource(Protocol):
    """Gives the bearer token for the next call; cheap, called for each."""

    def token(self) -> str:
        """The token. Raises InvalidArgument when there is none to be had."""
        ...

    def renew(self) -> None:
        """Forgets what is cached: the platform has just refused it."""
        ...


def _checked(token: str, otherwise: str) -> str:
    """The token; InvalidArgument when it is not one word of ASCII, which gRPC could not send."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidArgument(f"{otherwise}; use what `tidewire token create` prints", field="token")
    return token


class StaticToken:
    """One token, for ever."""

    def __init__(self, token: str) -> None:
        self._token = token.strip()

    def token(self) -> str:
        """The token. Raises InvalidArgument when no token can look like that."""
        return _checked(self._token, "the token given is none")

    def renew(self) -> None:
        """Does nothing: there is no other."""

    def __repr__(self) -> str:
        return "StaticToken(…)"


class FileToken:
    """The contents of a file, read again when it changes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._seen: tuple[int, int] | None = None
        self._token = ""

    def token(self) -> str:
        """The token in the file. Raises InvalidArgument when the file cannot be read or is empty."""
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                self._token = self._path.read_text(encoding="utf-8", errors="replace").strip()
                self._seen = seen
        except OSError as error:
            raise InvalidArgument(
                f"the token file {self._path} cannot be read: {error.strerror}", field="token_file"
            ) from error
        if not self._token:
            raise InvalidArgument(f"the token file {self._path} is empty", field="token_file")
        return _checked(self._token, f"the token file {self._path} holds no token")

    def renew(self) -> None:
        """Reads the file again at the next call."""
        self._seen = None

    def __repr__(self) -> str:
        return f"FileToken({str(self._path)!r})"


class DeviceKey:
    """A device's own identity: it signs itself short tokens with its private key.

    Args:
        device: device id, which the token carries as `iss` and `sub`.
        credential: id of the credential under which the public key is registered; the token's `kid`. A resource name
            will do.
        key: the private key, or a PEM file that holds it; Ed25519 or P-256.
        lifetime_seconds: how long a token holds, at most 3,600. It is renewed when a fifth of that is left.
    """

    def __init__(
        self,
        device: str,
        credential: str,
        key: "PrivateKey | str | os.PathLike[str]",
        *,
        lifetime_seconds: int = DEVICE_TOKEN_SECONDS,
    ) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        from tidewire_client.keys import load_private_key

        if not 10 <= lifetime_seconds <= DEVICE_TOKEN_SECONDS:
            raise InvalidArgument("lifetime_seconds must be from 10 to 3600", field="lifetime_seconds")
        self.device = device.rsplit("/", 1)[-1]
        self._kid = credential.rsplit("/", 1)[-1]
        if isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
            self._key: PrivateKey = key
        else:
            self._key = load_private_key(key)
        self._algorithm = "EdDSA" if isinstance(self._key, ed25519.Ed25519PrivateKey) else "ES256"
        self._lifetime = lifetime_seconds
        self._token = ""
        self._renew_at = 0.0

    def token(self) -> str:
        """The current token, made anew when it nears its end."""
        now = time.time()
        if now >= self._renew_at:
            import jwt

            issued = int(now)
            claims = {
                "iss": self.device,
                "sub": self.device,
                "aud": AUDIENCE,
                "iat": issued,
                "exp": issued + self._lifetime,
            }
            self._token = jwt.encode(claims, self._key, algorithm=self._algorithm, headers={"kid": self._kid})
            self._renew_at = issued + self._lifetime * (1 - _RENEW_BEFORE_END)
        return self._token

    def renew(self) -> None:
        """Makes a new token at the next call."""
        self._renew_at = 0.0

    def __repr__(self) -> str:
        return f"DeviceKey({self.device!r}, {self._kid!r})"
