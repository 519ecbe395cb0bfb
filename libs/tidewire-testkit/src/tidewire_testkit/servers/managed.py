"""A Cassandra that nodetool can talk to: for tests of snapshots. Others have no JMX, which would slow their start."""

import socket
import subprocess
from pathlib import Path
from typing import Any

from tidewire_testkit.servers.cassandra import CassandraCluster
from tidewire_testkit.servers.install import RECIPES, installed, java
from tidewire_testkit.servers.processes import ServerError

_SECONDS = 120.0


class ManagedCassandra(CassandraCluster):
    """One node. Use as `CassandraCluster`."""

    def __init__(self, **options: Any) -> None:
        with socket.socket() as probe:  # JMX listens on 127.0.0.1, whatever the node's address
            probe.bind(("127.0.0.1", 0))
            self._jmx_port: int = probe.getsockname()[1]
        super().__init__(1, **options)

    def command(self, number: int) -> list[str]:
        """The node, with JMX."""
        *options, main = super().command(number)
        return [*options, f"-Dcassandra.jmx.local.port={self._jmx_port}", main]

    def nodetool(self, *words: str) -> str:
        """Runs nodetool; what it prints. ServerError when it fails."""
        command = [
            java(), f"@{RECIPES / 'cassandra' / 'java.options'}", "-cp", f"{installed(self.NAME)}/*", "-Xmx128m",
            "-XX:TieredStopAtLevel=1", f"-Dlogback.configurationFile={RECIPES / 'cassandra' / 'logback.xml'}",
            "org.apache.cassandra.tools.NodeTool", "-p", str(self._jmx_port), *words,
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS, cwd=self.directory
        )
        if done.returncode != 0:
            raise ServerError(f"nodetool {' '.join(words)}:\n{(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def snapshots(self, keyspace: str, name: str) -> dict[str, Path]:
        """Table → the directory of its files in a snapshot."""
        data = self.node(1).home / "data" / "data" / keyspace
        return {path.parts[-3].rpartition("-")[0]: path for path in data.glob(f"*/snapshots/{name}")}
