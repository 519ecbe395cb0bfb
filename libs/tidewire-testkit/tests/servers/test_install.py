"""Installing names what is missing, and looks only where it is told to."""

import os
from pathlib import Path

import pytest

from tidewire_testkit.servers.install import cache_directory, installed, java
from tidewire_testkit.servers.processes import ServerError


def executable(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Java and Maven, and with an empty cache."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("TIDEWIRE_SERVERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tmp_path


def test_missing_java_is_named(bare: Path) -> None:
    with pytest.raises(ServerError, match="java is missing: install Java 17, or set JAVA_HOME"):
        installed("kafka")


def test_a_java_of_another_version_is_refused(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(bare / "jdk" / "bin" / "java", """echo 'openjdk version "21.0.2" 2024-01-16' >&2""")
    monkeypatch.setenv("JAVA_HOME", str(bare / "jdk"))

    with pytest.raises(ServerError, match="java is version 21: install Java 17"):
        java()


def test_missing_maven_is_named(bare: Path) -> None:
    executable(bare / "bin" / "java", """echo 'openjdk version "17.0.15" 2025-04-15' >&2""")

    with pytest.raises(ServerError, match="mvn is missing: install Maven"):
        installed("cassandra")


def test_what_maven_says_is_passed_on_and_nothing_half_done_stays(bare: Path) -> None:
    executable(bare / "bin" / "java", """echo 'openjdk version "17.0.15" 2025-04-15' >&2""")
    executable(bare / "bin" / "mvn", "echo 'the repository does not answer'; exit 1")

    with pytest.raises(ServerError, match="the repository does not answer"):
        installed("kafka")
    assert [name for name in os.listdir(bare / "cache") if not name.endswith(".lock")] == []


def test_the_cache_is_in_the_users_cache_directory_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEWIRE_SERVERS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "tidewire-servers"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "tidewire-servers"
    monkeypatch.setenv("TIDEWIRE_SERVERS_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"
