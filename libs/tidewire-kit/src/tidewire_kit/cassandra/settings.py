"""Where Cassandra is and how it is used: the settings that every process of the distributed backend reads.

Read by the composition roots and handed to `connect`. Secrets are named by path, never given as values.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tidewire_kit.errors import InvalidArgument
from tidewire_kit.settings import setting

PREFIX = "TIDEWIRE_CASSANDRA_"
DEFAULT_PORT = 9042
_KEYSPACE = re.compile(r"[a-z][a-z0-9_]{0,47}")
_CONTACT_POINT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\[\]:\s]+))(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class CassandraSettings:
    """How a process reaches and uses Cassandra."""

    PREFIX: ClassVar[str] = PREFIX

    contact_points: str = "127.0.0.1:9042"
    """Some of the cluster's nodes, `host:port`, comma separated; the others are learnt from them. A name may stand for
    several addresses. Default: a node on this machine."""

    datacenter: str = ""
    """The datacenter whose nodes are asked and whose majority counts (LOCAL_QUORUM), as `nodetool status` names it.
    Unset: the cluster's only one; with several it must be given."""

    keyspace: str = "tidewire"
    """Keyspace of all tables, `[a-z][a-z0-9_]{0,47}`; `tidewire schema apply` creates it when it is missing. One
    platform per keyspace."""

    replication_factor: int = setting(3, minimum=1, maximum=9)
    """Copies of every row in the datacenter when `tidewire schema apply` creates the keyspace. Default 3: one node may
    fail without anybody noticing. An existing keyspace is not changed."""

    username: str = ""
    """User name. Unset: no authentication."""

    password_file: Path | None = None
    """File with the user's password, read at the start."""

    ca_file: Path | None = None
    """Certificate authorities of the nodes, PEM. Unset: no TLS."""

    cert_file: Path | None = None
    """Certificate chain of this client, PEM, for clusters that ask for one."""

    key_file: Path | None = None
    """Private key of the client's certificate, PEM."""

    tls_server_name: str = ""
    """The name that the certificate of every node carries. Unset: a node's certificate must carry the address by which
    it is reached, which for nodes learnt from others is their IP address."""

    connect_timeout_seconds: float = setting(10.0, minimum=1, maximum=300)
    """Longest time that the first connection may take before the process gives up. Default 10 s."""

    request_timeout_seconds: float = setting(15.0, minimum=0.1, maximum=300)
    """Longest time of a request with all its tries. Default 15 s: for 10 s after a node died others may still wait for
    it."""

    try_timeout_seconds: float = setting(2.0, minimum=0.05, maximum=60)
    """Time after which a request that may be repeated is also sent to another node. Default 2 s: above what a busy node
    takes, so that load does not breed load."""

    in_flight_requests: int = setting(256, minimum=1, maximum=16384)
    """Most requests of this process that wait for an answer at once; more wait in order of arrival. Default 256: more
    does not make two nodes' cores faster, and each may hold a row of 1 MB."""

    auto_schema: bool = False
    """Applies missing schema steps at the start, for development. Off: a process that finds some missing refuses to
    start and names `tidewire schema apply`, so that changing tables stays a decision."""

    def addresses(self) -> list[tuple[str, int]]:
        """Returns the contact points as (host, port). Raises InvalidArgument for one that is none."""
        points = []
        for text in self.contact_points.split(","):
            match = _CONTACT_POINT.fullmatch(text.strip())
            port = int(match["port"] or DEFAULT_PORT) if match else 0
            if match is None or not 0 < port < 65536:
                raise InvalidArgument(
                    variable("contact_points"),
                    f"{text.strip()!r} is not `host:port`; separate several by commas",
                )
            points.append((match["v6"] or match["host"], port))
        return points

    def checked_keyspace(self) -> str:
        """Returns the keyspace. Raises InvalidArgument for a name that is none."""
        if not _KEYSPACE.fullmatch(self.keyspace):
            raise InvalidArgument(
                variable("keyspace"), f"{self.keyspace!r} is not a keyspace's name: [a-z][a-z0-9_]{{0,47}}"
            )
        return self.keyspace


def variable(field: str) -> str:
    """Returns the environment variable of a field of CassandraSettings, for messages."""
    return PREFIX + field.upper()
