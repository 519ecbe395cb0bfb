"""What clusters of either kind have in common: nodes that start, die, hang and come back, and an end without remains.

Nodes are numbered from 1 and listen on consecutive addresses. Subclasses say how a node is prepared and when the whole
is ready; see `kafka` and `cassandra`.
"""

import shutil
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tidewire_testkit.certificates import Authority
from tidewire_testkit.servers.addresses import addresses_from, free_address, is_free
from tidewire_testkit.servers.processes import Node, ServerError, keep_logs

OPEN: "weakref.WeakSet[Cluster]" = weakref.WeakSet()
"""Clusters of this process that were not closed yet: the ones whose logs may say why a test has failed."""

READY_SECONDS = 240.0
"""Generous: three nodes of Cassandra on two cores that others use as well."""

_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Credentials:
    """How a client proves itself to a secure cluster. Secrets are in files, as Tidewire's settings want them."""

    username: str
    password_file: Path
    ca_file: Path
    cert_file: Path
    """Client certificate, for a listener that asks for one."""
    key_file: Path


class Cluster(ABC):
    """One or three servers on one machine; a context manager that starts them and, at the end, removes every trace.

    nodes: 1 or 3. With three, data are replicated by 3.
    secure: TLS and authentication; `credentials` has what a client needs.
    settings: configuration of the servers that overrides the one made here.
    address: of the first node; the others follow it. Default: loopback addresses nobody uses.
    port: the clients' port; default the customary one.
    quick_start: the JVMs compile fast rather than well, which halves the CPU of a start. False for measuring.
    lasting: data outlive a node's crash. False for servers that are never started again: they need not write to
        the disk before they answer, and make tables in a fraction of the time.
    directory: configuration, data, logs. Default: a temporary one that `close` removes.
    leashed: the servers die with this process. False only for servers that outlive the command that starts them.
    logs_directory: where `keep_logs` copies the logs to; done for all clusters when a test fails.
    """

    NAME: ClassVar[str]
    PORT: ClassVar[int]
    PORT_OFFSETS: ClassVar[tuple[int, ...]]
    """Ports a node takes, counted from the clients' port."""
    USERNAME: ClassVar[str]
    PASSWORD: ClassVar[str]

    def __init__(
        self,
        nodes: int = 1,
        *,
        secure: bool = False,
        settings: Mapping[str, object] | None = None,
        address: str | None = None,
        port: int | None = None,
        quick_start: bool = True,
        lasting: bool = True,
        directory: Path | None = None,
        leashed: bool = True,
        logs_directory: Path | None = None,
    ) -> None:
        if nodes not in (1, 3):
            raise ValueError("a cluster has 1 or 3 nodes")
        self.secure = secure
        self.lasting = lasting
        self.settings = dict(settings or {})
        self.jvm_options = ["-XX:TieredStopAtLevel=1"] if quick_start else []
        self.port = self.PORT if port is None else port
        self._ports = tuple(self.port + offset for offset in self.PORT_OFFSETS)
        self.addresses = addresses_from(address or free_address(nodes, self._ports), nodes)
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix=f"tidewire-{self.NAME}-"))
        self._logs_directory = logs_directory or Path("build") / "servers"
        self._nodes = [
            Node(self.directory / f"node{number}", address, self.command(number), leashed=leashed)
            for number, address in enumerate(self.addresses, 1)
        ]
        OPEN.add(self)

    @abstractmethod
    def command(self, number: int) -> list[str]:
        """The command that runs a node; installs the server when it is not there."""

    @abstractmethod
    def prepare(self, number: int) -> None:
        """Writes a node's configuration into its home; called before every start."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether clients can use every running node, and the running nodes know each other. May take seconds."""

    # Life

    def start(self, *, wait: bool = True) -> None:
        """Starts the nodes that do not run, and waits until all can be used."""
        if self.secure:
            self._make_certificates()
        starting = [number for number in self.numbers if self.node(number).pid is None]
        for number in starting:
            self._check_free(number)
            self.node(number).home.mkdir(parents=True, exist_ok=True)
            self.prepare(number)
        for number in starting:
            self.node(number).start()
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Waits until clients can use every running node. ServerError when one ends meanwhile, or at the deadline."""
        running = [node for node in self._nodes if node.pid is not None]
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            for node in running:
                node.check_running()
            if time.monotonic() > deadline:
                tails = "\n".join(f"--- {node.home.name}\n{node.log_tail()}" for node in running)
                raise ServerError(f"{self.NAME} is not ready after {seconds:.0f} s; its logs end:\n{tails}")
            time.sleep(_PAUSE_SECONDS)

    def close(self) -> None:
        """Kills all nodes and removes the directory when it is a temporary one. May be called twice."""
        OPEN.discard(self)
        for node in self._nodes:
            node.kill()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def keep_logs(self) -> Path:
        """Copies the nodes' logs out of the directory that goes away, and returns where to."""
        kept = self._logs_directory / self.directory.name
        keep_logs(self._nodes, kept)
        return kept

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Single nodes

    @property
    def numbers(self) -> range:
        """The numbers of the nodes."""
        return range(1, len(self._nodes) + 1)

    def node(self, number: int) -> Node:
        """A node's process."""
        return self._nodes[number - 1]

    @property
    def running(self) -> list[int]:
        """Numbers of the nodes that run, suspended or not."""
        return [number for number in self.numbers if self.node(number).pid is not None]

    def kill(self, number: int = 1) -> None:
        """Kills a node as a crash would (SIGKILL). Its data stay."""
        self.node(number).kill()

    def stop(self, number: int = 1) -> None:
        """Stops a node in an orderly way."""
        self.node(number).stop()

    def suspend(self, number: int = 1) -> None:
        """Suspends a node (SIGSTOP): it holds its connections and answers nothing."""
        self.node(number).suspend()

    def resume(self, number: int = 1) -> None:
        """Lets a suspended node go on."""
        self.node(number).resume()

    def restart(self, number: int = 1, *, wait: bool = True) -> None:
        """Starts a node again over its data, stopping it before when it runs; waits until the cluster is ready."""
        node = self.node(number)
        node.stop()
        self._check_free(number)
        node.start()
        if wait:
            self.wait_ready()

    # How clients reach it

    def client_addresses(self, offset: int = 0) -> str:
        """host:port of every node, comma separated, at a port counted from the clients' one."""
        return ",".join(f"{address}:{self.port + offset}" for address in self.addresses)

    @property
    def credentials(self) -> Credentials:
        """What a client of a secure cluster needs."""
        assert self.secure, "the cluster is not secure"
        tls = self.tls_directory
        return Credentials(
            self.USERNAME, tls / "password", tls / "tidewire-ca.pem", tls / "client.pem", tls / "client.key"
        )

    @property
    def tls_directory(self) -> Path:
        """The authority's certificate, and certificates and keys of servers (`server.pem`, `.key`) and clients."""
        return self.directory / "tls"

    def _make_certificates(self) -> None:
        tls = self.tls_directory
        if (tls / "password").exists():
            return
        tls.mkdir(parents=True, exist_ok=True)
        authority = Authority("tidewire")
        authority.write(tls)
        for name in ("server", "client"):
            cert_file, key_file = authority.issue(tls, name, addresses=self.addresses)
            (tls / f"{name}-both.pem").write_bytes(key_file.read_bytes() + cert_file.read_bytes())
        (tls / "password").write_text(self.PASSWORD)

    def _check_free(self, number: int) -> None:
        address = self.addresses[number - 1]
        deadline = time.monotonic() + 10  # a killed process may hold its sockets for a moment longer
        while taken := [port for port in self._ports if not is_free(address, port)]:
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.NAME} cannot listen on {address}:{taken[0]}: not an address here, or taken"
                )
            time.sleep(0.1)
