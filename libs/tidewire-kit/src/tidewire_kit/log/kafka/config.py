"""What the client library is told: one dictionary per kind of client, made from `KafkaSettings`.

The password goes from its file into the dictionary and nowhere else.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tidewire_kit.errors import FailedPrecondition, InvalidArgument
from tidewire_kit.log.kafka.client_log import client_log
from tidewire_kit.log.kafka.settings import KafkaSettings

Config = dict[str, Any]

BROKER_RECORD_BYTES = 1_048_588
"""`max.message.bytes` of topics, which is also the brokers' default: a record of the port's size with all around it."""
_CLIENT_RECORD_BYTES = 1_048_576
_HEARTBEATS_PER_SESSION = 20
"""A member learns of a rebalance with its next heartbeat, so frequent ones make handing over quick."""


def base(settings: KafkaSettings, name: str) -> Config:
    """What all clients share; `name` tells them apart in the brokers' logs.

    Raises FailedPrecondition for a file that cannot be read, InvalidArgument for settings that do not fit together.
    """
    config: Config = {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": f"tidewire-{name}",
        "security.protocol": settings.security_protocol,
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        # A broker that is stopped, not dead, answers nothing and closes nothing: give its connection up early.
        "socket.timeout.ms": 10_000,
        "socket.connection.setup.timeout.ms": 5000,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "retry.backoff.ms": 50,
        "log.connection.close": False,
        "log_level": 4,
        "logger": client_log,
    }
    if settings.security_protocol in ("SSL", "SASL_SSL"):
        _add_tls(config, settings)
    if settings.security_protocol in ("SASL_SSL", "SASL_PLAINTEXT"):
        _add_sasl(config, settings)
    return config


def producer(settings: KafkaSettings, on_error: Callable[[Any], None]) -> Config:
    """Idempotent, acknowledged by all in-sync replicas. Its own queue is never the limit: ours is, see `producer`."""
    config = base(settings, "producer") | {
        "acks": "all",
        "enable.idempotence": True,
        "max.in.flight": 5,
        "linger.ms": settings.linger_ms,
        "compression.type": settings.compression,
        "message.max.bytes": _CLIENT_RECORD_BYTES,
        "batch.size": 1_000_000,
        "delivery.timeout.ms": 0,  # never: a timeout of single records ends in duplicates, see `_start_over`
        "request.timeout.ms": min(settings.delivery_timeout_ms, 10_000),
        "queue.buffering.max.messages": 10_000_000,
        "queue.buffering.max.kbytes": 2_097_151,
        "error_cb": on_error,
    }
    return config | _statistics(settings)


def consumer(settings: KafkaSettings, group: str) -> Config:
    """A member of a consumer group."""
    config = _reader(settings, group) | {
        "group.protocol": settings.group_protocol,
        "max.poll.interval.ms": settings.max_poll_interval_ms,
        # Where there is no offset, or a wrong one, the adapter decides.
        "auto.offset.reset": "error",
    }
    if settings.group_protocol == "classic":
        config |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": min(settings.session_timeout_ms, settings.max_poll_interval_ms),
            "heartbeat.interval.ms": settings.session_timeout_ms // _HEARTBEATS_PER_SESSION,
        }
    return config | _statistics(settings)


def reader(settings: KafkaSettings, name: str) -> Config:
    """A client that reads partitions it names itself: tables, and reading without a group."""
    return _reader(settings, f"{settings.topic_prefix}tidewire.{name}") | {
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
    }


def _reader(settings: KafkaSettings, group: str) -> Config:
    return base(settings, "consumer") | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "queued.max.messages.kbytes": 32 * 1024,
        "fetch.max.bytes": 16 << 20,
        # Not the default of a second: a reader that keeps up empties the queue in milliseconds.
        "fetch.queue.backoff.ms": 20,
        "fetch.error.backoff.ms": 100,
        "check.crcs": True,
    }


def _statistics(settings: KafkaSettings) -> Config:
    return {"statistics.interval.ms": int(settings.statistics_seconds * 1000)}


def _add_tls(config: Config, settings: KafkaSettings) -> None:
    if settings.ca_file is not None:
        config["ssl.ca.location"] = _readable(settings.ca_file, "TIDEWIRE_KAFKA_CA_FILE")
    if (settings.cert_file is None) != (settings.key_file is None):
        missing = "TIDEWIRE_KAFKA_CERT_FILE" if settings.cert_file is None else "TIDEWIRE_KAFKA_KEY_FILE"
        raise InvalidArgument(missing, "is not set; a client certificate and its key are set together")
    if settings.cert_file is not None and settings.key_file is not None:
        config["ssl.certificate.location"] = _readable(settings.cert_file, "TIDEWIRE_KAFKA_CERT_FILE")
        config["ssl.key.location"] = _readable(settings.key_file, "TIDEWIRE_KAFKA_KEY_FILE")


def _add_sasl(config: Config, settings: KafkaSettings) -> None:
    if not settings.sasl_username:
        raise InvalidArgument("TIDEWIRE_KAFKA_SASL_USERNAME", "is not set; SASL needs a user name")
    if settings.sasl_password_file is None:
        raise InvalidArgument("TIDEWIRE_KAFKA_SASL_PASSWORD_FILE", "is not set; SASL needs a password")
    path = _readable(settings.sasl_password_file, "TIDEWIRE_KAFKA_SASL_PASSWORD_FILE")
    password = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    if not password:
        why = f"TIDEWIRE_KAFKA_SASL_PASSWORD_FILE names {path}, which is empty; put the password into it"
        raise FailedPrecondition(why, reason="KAFKA_SETTINGS", subject=path)
    config["sasl.mechanism"] = settings.sasl_mechanism
    config["sasl.username"] = settings.sasl_username
    config["sasl.password"] = password


def _readable(path: Path, setting: str) -> str:
    try:
        with path.open("rb"):
            return str(path)
    except OSError as error:
        why = f"{setting} names {path}, which cannot be read ({error.strerror}); correct the path or its permissions"
        raise FailedPrecondition(why, reason="KAFKA_SETTINGS", subject=str(path)) from error
