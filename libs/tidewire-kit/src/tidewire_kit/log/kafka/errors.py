"""What the client library's errors mean, in the errors of the kit; every module of this package maps through here.

At start, what waiting cannot mend (a wrong password or certificate) is FailedPrecondition and names the setting. Later
the same trouble may be a rotation that is under way: then it is Unavailable, and the client library keeps trying.
"""

from typing import Any

from confluent_kafka import KafkaError, KafkaException

from tidewire_kit.errors import FailedPrecondition, TidewireError, Unavailable
from tidewire_kit.log.errors import LogCorrupt
from tidewire_kit.log.kafka.probe import certificate_problem, speaks_tls_unasked
from tidewire_kit.log.kafka.settings import KafkaSettings

DEPENDENCY = "message log"

NOT_OWNER_CODES = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError._ASSIGNMENT_LOST,
        KafkaError.FENCED_MEMBER_EPOCH,
    }
)
"""Answers to a commit by somebody who is no member (any more)."""

STALE_CODES = frozenset(
    {KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS, KafkaError.STALE_MEMBER_EPOCH}
)
"""Answers to a commit that crossed a rebalance: worth another try, which fails if the partition is lost."""

MOVING_CODES = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)
"""Answers while topics are made and leaders and coordinators move: to be asked again for a while."""

_FORBIDDEN_CODES = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
_AUTHENTICATION_CODES = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})
_TOO_OLD_CODES = frozenset({KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE})
_CORRUPT_CODES = frozenset({KafkaError.INVALID_MSG, KafkaError._BAD_MSG})


def kafka_error(error: BaseException) -> KafkaError | None:
    """The library's error inside an exception of its."""
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return error.args[0]
    return None


def mapped(error: Any, doing: str) -> TidewireError:
    """What a caller is told when `doing` (for example `cannot create topic x`) has failed with `error`."""
    found = error if isinstance(error, KafkaError) else kafka_error(error)
    if found is None:
        return Unavailable(DEPENDENCY, f"{doing}: {error}")
    code = found.code()
    if code in _FORBIDDEN_CODES:
        why = (
            f"{doing}: {found.str()}; grant the user the rights listed in docs/reference/topics.md, or set "
            "TIDEWIRE_KAFKA_TOPIC_PREFIX to a prefix that it has rights for"
        )
        return FailedPrecondition(why, reason="KAFKA_NOT_AUTHORIZED", subject=doing)
    if code in _TOO_OLD_CODES:
        why = (
            f"{doing}: the brokers do not support it ({found.str()}); Tidewire needs Kafka 3.0 or newer, and 4.0 "
            "with TIDEWIRE_KAFKA_GROUP_PROTOCOL=consumer"
        )
        return FailedPrecondition(why, reason="KAFKA_TOO_OLD", subject=doing)
    if code in _CORRUPT_CODES:
        return LogCorrupt(f"{doing}: {found.str()}", reason="LOG_CORRUPT")
    return Unavailable(DEPENDENCY, f"{doing}: {found.str()}")


def cannot_connect(settings: KafkaSettings, errors: list[KafkaError]) -> TidewireError:
    """Why no broker answered at start, from what the library reported meanwhile; the gravest counts."""
    servers = settings.bootstrap_servers
    for error in errors:
        found = incurable(settings, error)
        if found is not None:
            return found
    if settings.security_protocol in ("PLAINTEXT", "SASL_PLAINTEXT"):
        unasked = speaks_tls_unasked(settings)
        if unasked is not None:
            return unasked
    texts = [error.str() for error in errors if error.code() != KafkaError._ALL_BROKERS_DOWN]
    detail = texts[-1] if texts else "no answer"
    if any(error.code() == KafkaError._RESOLVE for error in errors):
        why = f"no host of TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS={servers} can be resolved ({detail}); correct it"
    elif any("efused" in text for text in texts):
        why = (
            f"nothing listens at TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS={servers} ({detail}); start Kafka there or "
            "correct the setting"
        )
    else:
        why = (
            f"no broker of TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS={servers} answers ({detail}); see whether the address is "
            f"right and its listener speaks TIDEWIRE_KAFKA_SECURITY_PROTOCOL={settings.security_protocol}"
        )
    return Unavailable(DEPENDENCY, why, reason="KAFKA_UNREACHABLE")


def incurable(settings: KafkaSettings, error: KafkaError) -> FailedPrecondition | None:
    """An error of connecting that waiting does not mend, with its remedy; None for all others."""
    text = error.str()
    lower = text.lower()
    servers = settings.bootstrap_servers
    if error.code() in _AUTHENTICATION_CODES:
        why = (
            f"the brokers at {servers} refuse user {settings.sasl_username!r} ({text}); correct "
            "TIDEWIRE_KAFKA_SASL_USERNAME, the password in TIDEWIRE_KAFKA_SASL_PASSWORD_FILE or "
            "TIDEWIRE_KAFKA_SASL_MECHANISM"
        )
        return FailedPrecondition(
            why, reason="KAFKA_AUTHENTICATION", subject="TIDEWIRE_KAFKA_SASL_PASSWORD_FILE"
        )
    if error.code() == KafkaError._SSL or "ssl handshake" in lower or "ssl/tls alert" in lower:
        if "certificate verify failed" in lower:
            text = certificate_problem(settings) or text
        return _tls_error(settings, text)
    return None


def _tls_error(settings: KafkaSettings, text: str) -> FailedPrecondition:
    lower = text.lower()
    servers = settings.bootstrap_servers
    if "alert" in lower:
        subject = "TIDEWIRE_KAFKA_CERT_FILE"
        why = (
            f"the brokers at {servers} do not accept the client certificate, or miss one ({text}); set "
            "TIDEWIRE_KAFKA_CERT_FILE and TIDEWIRE_KAFKA_KEY_FILE to a pair that their authority has signed and has "
            "not expired"
        )
    elif "expired" in lower:
        subject = "TIDEWIRE_KAFKA_CA_FILE"
        why = (
            f"the certificate of the brokers at {servers}, or that of TIDEWIRE_KAFKA_CA_FILE, has expired ({text}); "
            "renew it"
        )
    elif "mismatch" in lower or "not valid for" in lower:
        subject = "TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS"
        why = (
            f"the certificate of the brokers is not for {servers} ({text}); use a name that the certificate has in "
            "TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS and the brokers' advertised.listeners"
        )
    elif "certificate" in lower:
        subject = "TIDEWIRE_KAFKA_CA_FILE"
        why = (
            f"the certificate of the brokers at {servers} is not signed by TIDEWIRE_KAFKA_CA_FILE="
            f"{settings.ca_file or '(unset: the system authorities)'} ({text}); name the authority that signed it"
        )
    else:
        subject = "TIDEWIRE_KAFKA_SECURITY_PROTOCOL"
        why = (
            f"TLS with {servers} fails ({text}); if that listener does not speak TLS, set "
            "TIDEWIRE_KAFKA_SECURITY_PROTOCOL=PLAINTEXT or use its other port; otherwise see TIDEWIRE_KAFKA_CA_FILE, "
            "TIDEWIRE_KAFKA_CERT_FILE and TIDEWIRE_KAFKA_KEY_FILE"
        )
    return FailedPrecondition(why, reason="KAFKA_TLS", subject=subject)
