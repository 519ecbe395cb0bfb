"""Kafka brokers for tests: KRaft, every node broker and controller at once.

Ports of a node, counted from the clients' one (9092): +0 clients (plain; SASL_SSL with SCRAM-SHA-512 when secure),
+2 clients by mutual TLS (only when secure), +3 brokers, +4 controllers (plain; mutual TLS when secure).
"""

import subprocess
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tidewire_testkit.servers.cluster import Cluster
from tidewire_testkit.servers.install import RECIPES, installed, java
from tidewire_testkit.servers.processes import ServerError

QUICK_FAILOVER: Final = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}
"""Settings with which a dead broker is noticed after 3 s instead of 9; for tests that kill one."""

_QUICK_GROUPS = {
    "group.consumer.min.session.timeout.ms": 10_000,
    "group.consumer.session.timeout.ms": 10_000,
    "group.consumer.min.heartbeat.interval.ms": 1_500,
    "group.consumer.heartbeat.interval.ms": 1_500,
}
"""With the protocol in which brokers decide how long a silent member stays: 45 s otherwise."""

_CLUSTER_ID = (
    "tidewire-test-cluster0"  # 22 characters that decode to the 16 bytes of a UUID, as Kafka wants them
)
_ADMIN_SECONDS = 5.0


class KafkaCluster(Cluster):
    """One broker, or three with replication factor 3 and min.insync.replicas 2. Topics are not made by themselves.

    `settings` are properties of server.properties. A secure cluster lets every authenticated client do everything.
    """

    NAME = "kafka"
    PORT = 9092
    PORT_OFFSETS = (0, 2, 3, 4)
    USERNAME = "tidewire"
    PASSWORD = "tidewire-secret"

    @property
    def bootstrap_servers(self) -> str:
        """host:port of every broker, comma separated: the plain listener, or SASL_SSL when secure."""
        return self.client_addresses()

    @property
    def mtls_servers(self) -> str:
        """host:port of every broker's mutual TLS listener; only when secure."""
        return self.client_addresses(2)

    def environ(self, *, mtls: bool = False) -> dict[str, str]:
        """Tidewire's settings for this cluster; `mtls`: by client certificate instead of a password."""
        prefix = "TIDEWIRE_KAFKA_"
        nodes = len(self.addresses)
        common = {
            f"{prefix}BOOTSTRAP_SERVERS": self.mtls_servers if mtls else self.bootstrap_servers,
            f"{prefix}REPLICATION_FACTOR": str(nodes),
            f"{prefix}MIN_INSYNC_REPLICAS": str(min(nodes, 2)),
        }
        if not self.secure:
            return common
        given = self.credentials
        common[f"{prefix}CA_FILE"] = str(given.ca_file)
        if mtls:
            proof = {"SECURITY_PROTOCOL": "SSL", "CERT_FILE": given.cert_file, "KEY_FILE": given.key_file}
        else:
            proof = {
                "SECURITY_PROTOCOL": "SASL_SSL",
                "SASL_MECHANISM": "SCRAM-SHA-512",
                "SASL_USERNAME": given.username,
                "SASL_PASSWORD_FILE": given.password_file,
            }
        return common | {f"{prefix}{key}": str(value) for key, value in proof.items()}

    def client_config(self) -> dict[str, str]:
        """librdkafka's properties for this cluster: plain, or by client certificate when secure."""
        if not self.secure:
            return {"bootstrap.servers": self.bootstrap_servers}
        given = self.credentials
        return {
            "bootstrap.servers": self.mtls_servers,
            "security.protocol": "SSL",
            "ssl.ca.location": str(given.ca_file),
            "ssl.certificate.location": str(given.cert_file),
            "ssl.key.location": str(given.key_file),
        }

    def command(self, number: int) -> list[str]:
        """The broker."""
        return [
            *_java("512m", "INFO"),
            *self.jvm_options,
            "-XX:+UseG1GC",
            "-XX:+ExitOnOutOfMemoryError",
            "kafka.Kafka",
            str(self.directory / f"node{number}" / "server.properties"),
        ]

    def prepare(self, number: int) -> None:
        """Writes server.properties, and formats the data directory when it is new."""
        home = self.node(number).home
        lines = [f"{key}={value}" for key, value in self._properties(number).items()]
        (home / "server.properties").write_text("\n".join(lines) + "\n")
        if not (home / "data" / "meta.properties").exists():
            self._format(number)

    def is_ready(self) -> bool:
        """Every running broker is in the metadata, and every partition has a leader and all of them in sync."""
        admin = AdminClient({**self.client_config(), "log_level": 0, "socket.timeout.ms": 3000})
        try:
            metadata = admin.list_topics(timeout=_ADMIN_SECONDS)
        except KafkaException:
            return False
        running = set(self.running)
        return set(metadata.brokers) == running and all(
            partition.leader in running and set(partition.isrs) == set(partition.replicas) & running
            for topic in metadata.topics.values()
            for partition in topic.partitions.values()
        )

    def _properties(self, number: int) -> dict[str, object]:
        address, port, home = self.addresses[number - 1], self.port, self.node(number).home
        nodes = len(self.addresses)
        in_sync = min(nodes, 2)
        listeners = {"CLIENT": port, "BROKER": port + 3, "CONTROLLER": port + 4}
        protocols = dict.fromkeys(listeners, "PLAINTEXT")
        if self.secure:
            listeners["MTLS"] = port + 2
            protocols = {"CLIENT": "SASL_SSL", "BROKER": "SSL", "CONTROLLER": "SSL", "MTLS": "SSL"}
        return {
            "process.roles": "broker,controller",
            "node.id": number,
            "log.dirs": home / "data",
            "controller.quorum.bootstrap.servers": self.client_addresses(4),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "BROKER",
            "listeners": ",".join(f"{name}://{address}:{at}" for name, at in listeners.items()),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "default.replication.factor": nodes,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": nodes,
            "share.coordinator.state.topic.replication.factor": nodes,
            "share.coordinator.state.topic.min.isr": in_sync,
            "transaction.state.log.replication.factor": nodes,
            "transaction.state.log.min.isr": in_sync,
            "unclean.leader.election.enable": "false",
            "auto.create.topics.enable": "false",
            # Small and quick rather than wide.
            "offsets.topic.num.partitions": 4,
            "share.coordinator.state.topic.num.partitions": 4,
            "transaction.state.log.num.partitions": 4,
            "log.cleaner.dedupe.buffer.size": 16 << 20,
            "group.initial.rebalance.delay.ms": 0,
            **_QUICK_GROUPS,
            **(self._secure_properties() if self.secure else {}),
            **self.settings,
        }

    def _secure_properties(self) -> dict[str, object]:
        scram = "listener.name.client.scram-sha-512.sasl.jaas.config"
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.tls_directory / "server-both.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.credentials.ca_file,
            "ssl.client.auth": "required",
            "listener.name.client.ssl.client.auth": "none",
            "listener.name.client.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            scram: "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        }

    def _format(self, number: int) -> None:
        """Makes the data directory, with the first controllers' names and the SCRAM user."""
        controllers = ",".join(
            f"{other}@{address}:{self.port + 4}:tidewire-test-node-{other:02}A"
            for other, address in enumerate(self.addresses, 1)
        )
        command = [
            *_java("128m", "ERROR"),
            "-XX:TieredStopAtLevel=1",
            "kafka.tools.StorageTool",
            "format",
            "--cluster-id",
            _CLUSTER_ID,
        ]
        command += [
            "--config",
            str(self.node(number).home / "server.properties"),
            "--initial-controllers",
            controllers,
        ]
        if self.secure:
            command += ["--add-scram", f"SCRAM-SHA-512=[name={self.USERNAME},password={self.PASSWORD}]"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServerError(f"kafka could not format {self.node(number).home}:\n{done.stdout}{done.stderr}")


def _java(heap: str, log_level: str) -> list[str]:
    return [
        java(),
        "-cp",
        f"{installed('kafka')}/*",
        f"-Xmx{heap}",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={RECIPES / 'kafka' / 'log4j2.properties'}",
        f"-Dtidewire.log={log_level}",
    ]
