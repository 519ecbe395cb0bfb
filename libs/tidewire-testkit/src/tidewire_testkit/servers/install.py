"""Fetches the servers' jars once, by Maven, into a directory outside the repository.

The versions are pinned by tests/servers/<name>/pom.xml. What is there is left alone; what is half done is never seen.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tidewire_testkit.servers.processes import ServerError

RECIPES = Path(__file__).resolve().parents[5] / "tests" / "servers"
"""Poms and configuration files: the repository's tests/servers."""

CACHE_VARIABLE = "TIDEWIRE_SERVERS_CACHE"
JAVA_VERSION = "17"
"""Kafka 4 needs at least this one, and Cassandra 5.0 runs on none that is newer."""

_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


def cache_directory() -> Path:
    """Where installed servers are: TIDEWIRE_SERVERS_CACHE, or tidewire-servers in the user's cache directory."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidewire-servers"


def java() -> str:
    """The Java to run servers with: that of JAVA_HOME, or else on PATH. ServerError when it is missing or unfit."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(str(Path(home, "bin", "java"))) if home else shutil.which("java")
    if found is None:
        raise ServerError(f"java is missing: install Java {JAVA_VERSION}, or set JAVA_HOME to where it is")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or version[1] != JAVA_VERSION:
        raise ServerError(
            f"{found} is version {version[1] if version else 'unknown'}: install Java {JAVA_VERSION}, "
            "or set JAVA_HOME to where it is"
        )
    return found


def installed(name: str) -> Path:
    """The directory of the jars of `kafka` or `cassandra`, installed first when it is not there (minutes).

    Safe when several processes ask at once. ServerError says what is missing or what Maven said.
    """
    pom = RECIPES / name / "pom.xml"
    version = re.search(rf"<{name}\.version>(.+)</", pom.read_text())
    assert version is not None, pom
    target = cache_directory() / f"{name}-{version[1]}"
    if target.is_dir():
        return target
    java()
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerError(f"mvn is missing: install Maven; it fetches {name} {version[1]}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
        try:
            _copy_jars(maven, pom, work)
            work.chmod(0o755)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def _copy_jars(maven: str, pom: Path, directory: Path) -> None:
    arguments = ["--batch-mode", "--quiet", "-Dstyle.color=never", "--strict-checksums", "--file", str(pom)]
    goal = [_COPY, "-DincludeScope=runtime", f"-DoutputDirectory={directory}"]
    done = subprocess.run([maven, *arguments, *goal], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerError(
            f"mvn could not fetch the jars of {pom.parent.name}:\n{(done.stdout + done.stderr)[-3000:]}"
        )
