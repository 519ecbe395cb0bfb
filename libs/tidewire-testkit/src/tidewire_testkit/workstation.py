"""The `tidewire` command as somebody outside of the cluster runs it: on this machine, with contexts of its own."""

import json
import subprocess
import sys
from pathlib import Path

from tidewire_testkit.pods import Cluster, KubernetesError, ended


class Workstation:
    """A home directory with a kubeconfig. Nothing in the environment says where a platform is, or who calls."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        kept = {key: value for key, value in cluster.environ.items() if not key.startswith("TIDEWIRE_")}
        self.home = home
        self._environ = {**kept, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}

    def run(self, *words: str, stdin: str = "", seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs `tidewire WORDS` to its end, however that is. KubernetesError when it takes longer than `seconds`."""
        command = [str(Path(sys.executable).with_name("tidewire")), *words]
        return ended(command, self._environ, stdin, seconds, self.home)

    def tidewire(self, *words: str, stdin: str = "") -> str:
        """Runs `tidewire WORDS` and returns what it prints. KubernetesError when it fails."""
        done = self.run(*words, stdin=stdin)
        if done.returncode != 0:
            raise KubernetesError(f"tidewire {' '.join(words)}: {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def temperatures(self, device: str, tenant: str = "acme") -> list[float]:
        """A device's temperatures of the last hour, oldest first."""
        words = ("query", device, "temperature", "--rows", "--last", "1h", "--tenant", tenant, "-o", "json")
        return [float(row["temperature"]) for row in json.loads(self.tidewire(*words))["rows"]]
