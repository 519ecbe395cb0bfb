"""Cassandra nodes for tests.

Ports of a node, counted from the clients' one (9042): +0 clients (plain; TLS with a password when secure), +1 nodes
(plain; mutual TLS when secure). There is no JMX.
"""

import json
import ssl
from typing import ClassVar, Final

from cassandra import ConsistencyLevel, DriverException, RequestExecutionException
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, ExecutionProfile, NoHostAvailable
from cassandra.cluster import Cluster as Driver
from cassandra.connection import ConnectionException
from cassandra.policies import WhiteListRoundRobinPolicy

from tidewire_testkit.servers.cluster import Cluster
from tidewire_testkit.servers.install import RECIPES, installed, java

DATACENTER: Final = "datacenter1"
"""The datacenter of every node."""

_TOKENS_PER_NODE = 4
_FIRST_TOKEN, _LAST_TOKEN = -(2**63) + 1, 2**63 - 1
_DRIVER_SECONDS = 5.0
_READ = "SELECT now() FROM system_distributed.view_build_status WHERE keyspace_name = '' AND view_name = ''"
"""A read of a keyspace that all nodes replicate."""
_PEM = "org.apache.cassandra.security.PEMBasedSslContextFactory"


class CassandraCluster(Cluster):
    """One node, or three; keyspaces of the system are replicated to all of them.

    `settings` are keys of cassandra.yaml; a string that spells a number or the like is taken as that. A lone node
    syncs its commit log with every batch of writes (`commitlog_sync: batch`), because a periodic one loses what was
    acknowledged in the last 100 ms before a crash; three, and nodes that are not `lasting`, are periodic, as in
    production.
    """

    NAME = "cassandra"
    JAVA_OPTIONS: ClassVar[tuple[str, ...]] = ("cassandra",)
    PORT = 9042
    PORT_OFFSETS = (0, 1)
    USERNAME = "cassandra"
    PASSWORD = "cassandra"

    @property
    def contact_points(self) -> str:
        """host:port of every node, comma separated."""
        return self.client_addresses()

    def environ(self) -> dict[str, str]:
        """Tidewire's settings for this cluster."""
        prefix = "TIDEWIRE_CASSANDRA_"
        common = {
            f"{prefix}CONTACT_POINTS": self.contact_points,
            f"{prefix}DATACENTER": DATACENTER,
            f"{prefix}REPLICATION_FACTOR": str(len(self.addresses)),
        }
        if not self.secure:
            return common
        given = self.credentials
        return common | {
            f"{prefix}USERNAME": given.username,
            f"{prefix}PASSWORD_FILE": str(given.password_file),
            f"{prefix}CA_FILE": str(given.ca_file),
        }

    def driver(self, number: int = 1, *, consistency: int = ConsistencyLevel.ONE) -> Driver:
        """A driver that talks to one node only and never tries again; the caller shuts it down."""
        address = self.addresses[number - 1]
        profile = ExecutionProfile(
            load_balancing_policy=WhiteListRoundRobinPolicy([address]),
            consistency_level=consistency,
            request_timeout=_DRIVER_SECONDS,
        )
        secure = {}
        if self.secure:
            context = ssl.create_default_context(cafile=self.credentials.ca_file)
            context.check_hostname = False
            secure = {
                "ssl_context": context,
                "auth_provider": PlainTextAuthProvider(self.USERNAME, self.PASSWORD),
            }
        return Driver(
            [address],
            port=self.port,
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            protocol_version=5,
            connect_timeout=_DRIVER_SECONDS,
            schema_metadata_enabled=False,
            token_metadata_enabled=False,
            **secure,
        )

    def command(self, number: int) -> list[str]:
        """The node."""
        jars, home, nodes = installed(self.NAME), self.directory / f"node{number}", len(self.addresses)
        (jamm,) = jars.glob("jamm-*.jar")
        properties = {
            "java.net.preferIPv4Stack": "true",
            "logback.configurationFile": RECIPES / "cassandra" / "logback.xml",
            "cassandra.config": f"file://{home / 'cassandra.yaml'}",
            "cassandra.storagedir": home / "data",
            "cassandra-foreground": "yes",
            "cassandra.ring_delay_ms": "2000",
            "cassandra.skip_wait_for_gossip_to_settle": "0",
            "cassandra.superuser_setup_delay_ms": "0",
            "cassandra.system_auth.default_rf": nodes,
            "cassandra.system_distributed.default_rf": nodes,
        }
        if not self.lasting:
            # Otherwise every change of a table flushes the tables that describe tables.
            properties["cassandra.test.flush_local_schema_changes"] = "false"
        return [
            java(),
            *(f"@{RECIPES / name / 'java.options'}" for name in self.JAVA_OPTIONS),
            "-cp",
            f"{jars}/*",
            f"-javaagent:{jamm}",
            "-Xmx1g" if nodes == 1 else "-Xmx700m",
            "-Xss512k",
            "-XX:MaxDirectMemorySize=256m",
            "-XX:+UseG1GC",
            *self.jvm_options,
            "-XX:+ExitOnOutOfMemoryError",
            *(f"-D{key}={value}" for key, value in properties.items()),
            "org.apache.cassandra.service.CassandraDaemon",
        ]

    def prepare(self, number: int) -> None:
        """Writes cassandra.yaml; JSON is YAML, too."""
        text = json.dumps(self._configuration(number), indent=1, default=str)
        (self.node(number).home / "cassandra.yaml").write_text(text)

    def is_ready(self) -> bool:
        """Every running node takes a client, and reads from all running nodes: so it knows that they are up."""
        running = self.running
        levels = {1: ConsistencyLevel.ONE, 2: ConsistencyLevel.QUORUM, 3: ConsistencyLevel.ALL}
        return all(self._answers(number, levels[len(running)]) for number in running)

    def _answers(self, number: int, consistency: int) -> bool:
        driver = self.driver(number, consistency=consistency)
        try:
            driver.connect().execute(_READ)
        except (DriverException, RequestExecutionException, NoHostAvailable, ConnectionException, OSError):
            return False
        finally:
            driver.shutdown()
        return True

    def _configuration(self, number: int) -> dict[str, object]:
        address, nodes = self.addresses[number - 1], len(self.addresses)
        seeds = self.client_addresses(1)
        lone = {"commitlog_sync": "batch"}
        several = {"commitlog_sync": "periodic", "commitlog_sync_period": "10s"}
        return {
            "cluster_name": "tidewire",
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "endpoint_snitch": "SimpleSnitch",
            "num_tokens": _TOKENS_PER_NODE,
            "initial_token": _tokens(number, nodes),
            "seed_provider": [
                {
                    "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                    "parameters": [{"seeds": seeds}],
                }
            ],
            "listen_address": address,
            "storage_port": self.port + 1,
            "rpc_address": address,
            "native_transport_port": self.port,
            # What 5.0 recommends for a new cluster.
            "storage_compatibility_mode": "NONE",
            "memtable": {"configurations": {"default": {"class_name": "TrieMemtable"}}},
            "sstable": {"selected_format": "bti"},
            **(lone if nodes == 1 and self.lasting else several),
            "auto_snapshot": False,  # of tables that are dropped or emptied
            # Small and quick rather than wide.
            "concurrent_reads": 8,
            "concurrent_writes": 16,
            "concurrent_compactors": 1,
            "commitlog_segment_size": "16MiB",
            "commitlog_total_space": "256MiB",
            "memtable_heap_space": "128MiB",
            "memtable_offheap_space": "64MiB",
            "file_cache_size": "64MiB",
            "networking_cache_size": "32MiB",
            **(self._secure_configuration() if self.secure else {}),
            **{key: _from_yaml(value) for key, value in self.settings.items()},
        }

    def _secure_configuration(self) -> dict[str, object]:
        stores = {
            "ssl_context_factory": {"class_name": _PEM},
            "keystore": self.tls_directory / "server-both.pem",
            "truststore": self.credentials.ca_file,
        }
        return {
            "authenticator": "PasswordAuthenticator",
            "authorizer": "CassandraAuthorizer",
            "role_manager": "CassandraRoleManager",
            "client_encryption_options": {"enabled": True, "optional": False, **stores},
            "server_encryption_options": {
                "internode_encryption": "all",
                "require_client_auth": True,
                **stores,
            },
        }


def _from_yaml(value: object) -> object:
    """A number, a truth value, a list or a mapping out of the words of a command line."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _tokens(number: int, nodes: int) -> str:
    """A node's tokens, spread evenly over the ring, so that nodes may start at once without agreeing on tokens."""
    step = (_LAST_TOKEN - _FIRST_TOKEN) // (_TOKENS_PER_NODE * nodes)
    return ",".join(
        str(_FIRST_TOKEN + (turn * nodes + number - 1) * step) for turn in range(_TOKENS_PER_NODE)
    )
