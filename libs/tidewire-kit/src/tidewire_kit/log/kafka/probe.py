"""Looks at a listener by hand when the client library could not connect and cannot say why. Used at start only."""

import socket
import ssl

from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.log.kafka.settings import KafkaSettings

_SECONDS = 2.0


def speaks_tls_unasked(settings: KafkaSettings) -> FailedPrecondition | None:
    """Without TLS in the settings: the refusal when the first broker that listens speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only to see whether it is TLS; nothing is sent
    for host, port in _addresses(settings):
        try:
            _shake_hands(context, host, port)
        except OSError:
            continue
        wanted = "SASL_SSL" if settings.security_protocol == "SASL_PLAINTEXT" else "SSL or SASL_SSL"
        why = (
            f"the listener at {host}:{port} speaks TLS, and TIDEWIRE_KAFKA_SECURITY_PROTOCOL is "
            f"{settings.security_protocol}; set it to {wanted}, or name a port without TLS in "
            "TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS"
        )
        return FailedPrecondition(why, reason="KAFKA_TLS", subject="TIDEWIRE_KAFKA_SECURITY_PROTOCOL")
    return None


def certificate_problem(settings: KafkaSettings) -> str:
    """What is wrong with the certificate of the first broker that shows one; "" when nothing is found."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file and str(settings.ca_file))
    except (OSError, ssl.SSLError) as error:
        return f"the file is no list of certificates: {error}"
    for host, port in _addresses(settings):
        try:
            _shake_hands(context, host, port)
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        except OSError:
            continue
    return ""


def _shake_hands(context: ssl.SSLContext, host: str, port: int) -> None:
    with (
        socket.create_connection((host, port), timeout=_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=host),
    ):
        pass


def _addresses(settings: KafkaSettings) -> list[tuple[str, int]]:
    found = []
    for server in settings.bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        if host and port.isdigit():
            found.append((host.strip("[]"), int(port)))
    return found
