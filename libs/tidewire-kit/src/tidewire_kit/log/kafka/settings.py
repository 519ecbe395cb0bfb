"""What may be set on the Kafka adapter; the composition root loads it with `settings.load(KafkaSettings, environ)`.

Secrets are files, never values, so that none shows in an environment, a manifest or a process list.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from tidewire_kit.settings import setting


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach the cluster, how topics are made, and how much may wait."""

    PREFIX: ClassVar[str] = "TIDEWIRE_KAFKA_"

    bootstrap_servers: str = "127.0.0.1:9092"
    """Brokers to begin with, `host:port`, comma separated; the others are learned from them."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT"] = "PLAINTEXT"
    """How to talk to the brokers: `SSL` for TLS (with a client certificate: mutual), `SASL_SSL` for TLS and a
    password."""

    sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    """How the password is proven. Only used with `SASL_SSL` and `SASL_PLAINTEXT`."""

    sasl_username: str | None = None
    """User name for SASL."""

    sasl_password_file: Path | None = None
    """File that holds the user's password and nothing else; a final line break is not part of it."""

    ca_file: Path | None = None
    """Certificate authorities that the brokers' certificates are checked against, PEM. Unset: the system's."""

    cert_file: Path | None = None
    """Client certificate chain for mutual TLS, PEM. Unset: no client certificate."""

    key_file: Path | None = None
    """Private key of the client certificate, PEM, without a pass phrase."""

    topic_prefix: str = ""
    """Put before the name of every topic and consumer group, so that several platforms can share a cluster. Letters,
    digits, dots and hyphens."""

    partitions: int = setting(12, minimum=1, maximum=1024)
    """Partitions of the telemetry topic, fixed when it is created: another number is refused after that. At most
    so many processes of one service share the work. Default 12: a record costs the same whatever it holds, and 48
    partitions make four times as many (ADR 12)."""

    replication_factor: int = setting(3, minimum=1, maximum=16)
    """Copies of every partition, for topics that Tidewire creates; an existing topic with fewer is refused. Default 3:
    two brokers may die without loss."""

    min_insync_replicas: int = setting(2, minimum=1, maximum=16)
    """Copies that must have a record before it is acknowledged; an existing topic with fewer is refused. At most the
    replication factor counts. Default 2: what is acknowledged outlives any one broker."""

    auto_topics: bool = True
    """Creates missing topics at start. Off: a missing topic is refused; `tidewire topic apply` creates it."""

    linger_ms: float = setting(0.0, minimum=0, maximum=1)
    """How long a record waits for others to share its request, in milliseconds. Default 0: ingestion gathers itself."""

    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = "none"
    """Compression of records on the wire and on the brokers' disks. Default none: telemetry hardly shrinks and the
    processors are the bottleneck."""

    queue_bytes: int = setting(128 << 20, minimum=1 << 20, maximum=1 << 30)
    """Most bytes of records that wait in this process for their acknowledgement; beyond it callers are refused with
    `LOG_FULL`. Default 128 MiB."""

    delivery_timeout_ms: int = setting(20_000, minimum=1000, maximum=300_000)
    """How long a record may stay unacknowledged before its caller is told UNAVAILABLE. Default 20 s: longer than the
    cluster needs to replace a broker that died."""

    session_timeout_ms: int = setting(10_000, minimum=6000, maximum=300_000)
    """A consumer silent for so long has lost its partitions. With `group_protocol=consumer` the brokers decide it."""

    max_poll_interval_ms: int = setting(60_000, minimum=10_000, maximum=600_000)
    """A consumer that has not asked for records for so long has lost its partitions. Default 60 s."""

    group_protocol: Literal["classic", "consumer"] = "classic"
    """Protocol of consumer groups: `classic` works everywhere; `consumer` (KIP-848, Kafka 4.0 or newer) stops nobody
    while partitions move. All processes of a platform use the same."""

    connect_timeout_seconds: float = setting(8.0, minimum=1, maximum=60)
    """How long a starting process looks for a broker before it gives up and says why. Default 8 s."""

    request_timeout_seconds: float = setting(10.0, minimum=1, maximum=60)
    """How long an answer of the cluster to anything but producing may take."""

    statistics_seconds: float = setting(10.0, minimum=0, maximum=600)
    """How often the client library's statistics are turned into metrics. 0: never."""
