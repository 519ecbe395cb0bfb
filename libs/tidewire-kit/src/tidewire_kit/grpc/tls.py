"""TLS of the gRPC listeners and of calls between services, from files that may change while the process runs.

A certificate is renewed by replacing its files: servers look at each handshake whether they changed. A renewal that is
only half written, or unreadable, leaves the certificate before it in use and is logged.
"""

from dataclasses import dataclass
from pathlib import Path

import grpc

from tidewire_kit.errors import InvalidArgument
from tidewire_kit.observability.logs import get_logger
from tidewire_kit.settings import CommonSettings

logger = get_logger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a listener."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None
    """Set: every client must show a certificate of one of these authorities."""


def tls_files(settings: CommonSettings) -> TlsFiles | None:
    """Returns the listener's files, None without TLS. Raises InvalidArgument naming the setting that is missing."""
    cert, key, client_ca = settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        missing = "TIDEWIRE_TLS_CERT_FILE" if cert is None else "TIDEWIRE_TLS_KEY_FILE"
        raise InvalidArgument(
            missing, "is not set, and TLS needs both certificate and key; set it, or neither"
        )
    for variable, path in (
        ("TIDEWIRE_TLS_CERT_FILE", cert),
        ("TIDEWIRE_TLS_KEY_FILE", key),
        ("TIDEWIRE_TLS_CLIENT_CA_FILE", client_ca),
    ):
        if path is not None and not path.is_file():
            raise InvalidArgument(variable, f"there is no file {path}")
    return TlsFiles(cert, key, client_ca)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Returns credentials that follow the files. Raises InvalidArgument when they cannot be read at the start."""
    source = _Certificates(files)
    try:
        first = source.read()
    except OSError as error:
        raise InvalidArgument("TIDEWIRE_TLS_CERT_FILE", f"cannot be read: {error}") from error
    return grpc.dynamic_ssl_server_credentials(
        first,
        source.changed,  # type: ignore[arg-type]  # None, "unchanged", is allowed though not in the stub
        require_client_authentication=files.client_ca_file is not None,
    )


def channel_credentials(
    ca_file: Path | None, cert_file: Path | None = None, key_file: Path | None = None
) -> grpc.ChannelCredentials:
    """Returns what a client needs: `ca_file` None trusts the system's authorities."""
    return grpc.ssl_channel_credentials(
        root_certificates=ca_file.read_bytes() if ca_file else None,
        private_key=key_file.read_bytes() if key_file and cert_file else None,
        certificate_chain=cert_file.read_bytes() if key_file and cert_file else None,
    )


class _Certificates:
    """The current contents of the files. `changed` runs in threads of the library."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp: _Stamp = ()

    def read(self) -> grpc.ServerCertificateConfiguration:
        stamp = self._stamp_now()
        pair = (self._files.key_file.read_bytes(), self._files.cert_file.read_bytes())
        client_ca = self._files.client_ca_file
        configuration = grpc.ssl_server_certificate_configuration(
            [pair], root_certificates=client_ca.read_bytes() if client_ca else None
        )
        self._stamp = stamp
        return configuration

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new contents, or None when they are the same (or unreadable, as in the midst of a renewal)."""
        try:
            if self._stamp_now() == self._stamp:
                return None
            configuration = self.read()
        except OSError as error:
            logger.warning("tls_files_unreadable", error=str(error))
            return None
        logger.info("tls_certificate_read", cert_file=str(self._files.cert_file))
        return configuration

    def _stamp_now(self) -> _Stamp:
        paths = (self._files.cert_file, self._files.key_file, self._files.client_ca_file)
        stats = [path.stat() for path in paths if path is not None]
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)
