"""How a session is made: settings → TLS, authentication, policies, the first connection.

`connect` is called by composition roots and tests. It either returns a session that works or says within
`connect_timeout_seconds` which setting to correct.
"""

import asyncio
import logging
import socket
import ssl
from typing import Any

import structlog
from cassandra import ConsistencyLevel
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import (
    ConstantSpeculativeExecutionPolicy,
    DCAwareRoundRobinPolicy,
    ExponentialReconnectionPolicy,
    HostStateListener,
    RoundRobinPolicy,
    TokenAwarePolicy,
)
from prometheus_client import CollectorRegistry

from tidewire_kit.cassandra import start_errors
from tidewire_kit.cassandra.driver import Driver, NextNode, Timestamps
from tidewire_kit.cassandra.metrics import CassandraMetrics
from tidewire_kit.cassandra.rows import named_rows
from tidewire_kit.cassandra.session import CassandraSession
from tidewire_kit.cassandra.settings import CassandraSettings

_log = structlog.get_logger(__name__)

SETTINGS_KEYSPACE = ""
"""The default of `connect`'s `keyspace`: the one of the settings."""

_PROTOCOL_VERSION = 5
_HEARTBEAT_SECONDS = 5
_SPECULATIVE_TRIES = 8


async def connect(
    settings: CassandraSettings,
    *,
    metrics: CollectorRegistry | None = None,
    keyspace: str | None = SETTINGS_KEYSPACE,
) -> CassandraSession:
    """Connects and returns a session; close it. `keyspace=None` connects without one (to create it).

    Raises InvalidArgument for a setting that is malformed, FailedPrecondition naming the setting that does not fit the
    cluster, Unavailable when no node answers.
    """
    chosen = settings.checked_keyspace() if keyspace == SETTINGS_KEYSPACE else keyspace
    logger = logging.getLogger("cassandra")
    if logger.level == logging.NOTSET:
        # The driver logs tracebacks of what it then raises. What happens to nodes is told by _Nodes.
        logger.setLevel(logging.CRITICAL)
    instruments = CassandraMetrics(metrics)
    timestamps = Timestamps()
    cluster, session, datacenter = await asyncio.to_thread(
        _connect, settings, chosen, timestamps, instruments
    )
    try:
        version = start_errors.check_version(host.release_version for host in cluster.metadata.all_hosts())
    except BaseException:
        await asyncio.to_thread(cluster.shutdown)
        raise
    driver = Driver(
        cluster,
        session,
        timestamps,
        settings,
        instruments,
        datacenter=datacenter,
        server_version=version,
    )
    return CassandraSession(driver, settings, instruments)


def _connect(
    settings: CassandraSettings, keyspace: str | None, timestamps: Timestamps, metrics: CassandraMetrics
) -> tuple[Any, Any, str]:
    """Blocks; on a thread."""
    datacenter = settings.datacenter or _only_datacenter(settings)
    cluster = _cluster(settings, datacenter, timestamps)
    try:
        cluster.register_listener(_Nodes(cluster, datacenter, metrics))
        session = cluster.connect(keyspace)
    except Exception as error:
        datacenters = sorted({host.datacenter for host in cluster.metadata.all_hosts() if host.datacenter})
        keyspaces = list(cluster.metadata.keyspaces)
        cluster.shutdown()
        raise start_errors.start_error(error, settings, keyspace, datacenters, keyspaces) from error
    metrics.nodes_up.set(_nodes_up(cluster, datacenter))
    return cluster, session, datacenter


def _only_datacenter(settings: CassandraSettings) -> str:
    """Asks a contact point for the cluster's datacenters."""
    cluster = _cluster(settings, None, Timestamps())
    try:
        cluster.connect()
        found = sorted({host.datacenter for host in cluster.metadata.all_hosts() if host.datacenter})
    except Exception as error:
        raise start_errors.start_error(error, settings, None, []) from error
    finally:
        cluster.shutdown()
    return start_errors.only_datacenter(found)


def _cluster(settings: CassandraSettings, datacenter: str | None, timestamps: Timestamps) -> Any:
    nearest = DCAwareRoundRobinPolicy(local_dc=datacenter) if datacenter else RoundRobinPolicy()
    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(nearest),
        retry_policy=NextNode(),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
        request_timeout=settings.request_timeout_seconds,
        row_factory=named_rows,
        speculative_execution_policy=ConstantSpeculativeExecutionPolicy(
            settings.try_timeout_seconds, _SPECULATIVE_TRIES
        ),
    )
    context = _tls(settings)
    try:
        return Cluster(
            contact_points=settings.addresses(),
            # Nodes learnt from others are reached at the port of the first contact point unless they say otherwise.
            port=settings.addresses()[0][1],
            # zstd or lz4 would cost this process more than the network: blocks are compressed already.
            compression=False,
            protocol_version=_PROTOCOL_VERSION,
            auth_provider=_authentication(settings),
            ssl_context=context,
            ssl_options=(
                {"server_hostname": settings.tls_server_name}
                if context and settings.tls_server_name
                else None
            ),
            # Without it a lone large frame waits 40 ms for the acknowledgement of its first part.
            sockopts=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            timestamp_generator=timestamps,
            reconnection_policy=ExponentialReconnectionPolicy(0.5, 5.0, max_attempts=None),
            connect_timeout=settings.connect_timeout_seconds / 2,
            control_connection_timeout=settings.connect_timeout_seconds / 2,
            idle_heartbeat_interval=_HEARTBEAT_SECONDS,
            idle_heartbeat_timeout=_HEARTBEAT_SECONDS,
            max_schema_agreement_wait=30,
            application_name="tidewire",
            monitor_reporting_enabled=False,
        )
    except Exception as error:
        raise start_errors.start_error(error, settings, None, []) from error


def _authentication(settings: CassandraSettings) -> Any:
    if not settings.username:
        return None
    return PlainTextAuthProvider(settings.username, start_errors.read_password(settings))


def _tls(settings: CassandraSettings) -> ssl.SSLContext | None:
    if settings.ca_file is None:
        start_errors.check_no_tls(settings)
        return None
    context = start_errors.trusting(settings.ca_file)
    if settings.cert_file is not None:
        start_errors.load_certificate(context, settings)
    return context


def _nodes_up(cluster: Any, datacenter: str) -> int:
    return sum(1 for host in cluster.metadata.all_hosts() if host.is_up and host.datacenter == datacenter)


class _Nodes(HostStateListener):  # type: ignore[misc]  # the driver has no types
    """Tells of nodes that come and go. Called on the driver's threads."""

    def __init__(self, cluster: Any, datacenter: str, metrics: CassandraMetrics) -> None:
        self._cluster = cluster
        self._datacenter = datacenter
        self._metrics = metrics

    def on_up(self, host: Any) -> None:
        """A node answers again."""
        self._tell("cassandra node is up", host)

    def on_down(self, host: Any) -> None:
        """A node does not answer."""
        self._tell("cassandra node is down", host)

    def on_add(self, host: Any) -> None:
        """A node joined the cluster, or was learnt of."""
        self._count()

    def on_remove(self, host: Any) -> None:
        """A node left the cluster."""
        self._tell("cassandra node left", host)

    def _tell(self, what: str, host: Any) -> None:
        self._count()
        if host.datacenter == self._datacenter:
            _log.warning(what, node=str(host.endpoint), datacenter=host.datacenter)

    def _count(self) -> None:
        self._metrics.nodes_up.set(_nodes_up(self._cluster, self._datacenter))
