"""What the doctor says of things that can be looked at without a platform; the rest is in tests/platform."""

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tidewire_kit.datadir import open_data_dir
from tidewire_kit.log.kafka import KafkaSettings
from tidewire_platform.doctor.cassandra import copies_of
from tidewire_platform.doctor.clocks import judged
from tidewire_platform.doctor.data_dir import check_data_dir
from tidewire_platform.doctor.finding import Finding, State
from tidewire_platform.doctor.kafka_version import kafka_version, named


def states(findings: list[Finding]) -> list[State]:
    return [finding.state for finding in findings]


def test_every_finding_that_is_not_well_has_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("999\n")
    findings = [
        *check_data_dir(tmp_path),
        *check_data_dir(tmp_path / "none"),
        judged("kafka", 3.0),
        judged("kafka", -300.0),
    ]

    assert [finding for finding in findings if (finding.state is State.OK) == bool(finding.remedy)] == []


def test_a_good_data_directory_is_well_and_left_as_it_is(tmp_path: Path) -> None:
    root = open_data_dir(tmp_path / "data").root
    before = sorted(root.rglob("*"))

    findings = check_data_dir(root)

    assert states(findings)[:2] == [State.OK, State.OK]
    assert "format 1" in findings[0].text
    assert "GiB free" in findings[2].text
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(("content", "says"), [("999", "format 999"), ("old", "no number")])
def test_a_directory_of_another_format_is_wrong(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "VERSION").write_text(content)

    first = check_data_dir(tmp_path)[0]

    assert (first.state, says in first.text) == (State.WRONG, True)


def test_a_directory_without_data_is_a_warning_and_a_file_is_wrong(tmp_path: Path) -> None:
    assert states(check_data_dir(tmp_path)) == [State.WARNING]
    (tmp_path / "device-keys").mkdir()
    assert states(check_data_dir(tmp_path)) == [State.WARNING]
    (tmp_path / "file").touch()
    assert states(check_data_dir(tmp_path / "file")) == [State.WRONG]


def test_a_directory_of_somebody_else_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()

    assert check_data_dir(tmp_path)[0].state is State.WRONG


@pytest.mark.parametrize(
    ("skew_seconds", "state"),
    [(0.2, State.OK), (-0.2, State.OK), (1.5, State.WARNING), (-1.5, State.WARNING), (45, State.WRONG)],
)
def test_clocks_may_differ_a_little(skew_seconds: float, state: State) -> None:
    assert judged("node", skew_seconds).state is state


@pytest.mark.parametrize(
    ("replication", "copies"),
    [
        ({"class": "org.apache.cassandra.locator.NetworkTopologyStrategy", "here": "3", "there": "2"}, 3),
        ({"class": "org.apache.cassandra.locator.NetworkTopologyStrategy", "there": "2"}, None),
        ({"class": "org.apache.cassandra.locator.NetworkTopologyStrategy", "here": "3/1"}, 3),
        ({"class": "org.apache.cassandra.locator.SimpleStrategy", "replication_factor": "1"}, 1),
    ],
)
def test_copies_are_those_of_the_own_datacenter(replication: dict[str, str], copies: int | None) -> None:
    assert copies_of(replication, "here") == copies


@pytest.mark.parametrize(
    ("ranges", "version"),
    [
        ({1: (4, 18), 66: (0, 2)}, "4.0 or newer"),
        ({1: (0, 17), 66: (0, 1)}, "3.x"),
        ({1: (0, 12)}, "older than 3.0"),
    ],
)
def test_kafka_is_known_by_the_requests_that_it_knows(
    ranges: dict[int, tuple[int, int]], version: str
) -> None:
    assert named(ranges) == version


@contextmanager
def answering(answer: bytes) -> Iterator[KafkaSettings]:
    """A server that gives this answer, a few bytes at a time, to one question."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                assert len(connection.recv(64)) == 14
                with suppress(ConnectionError):  # whoever has seen enough goes without reading the rest
                    for start in range(0, len(answer), 7):
                        connection.sendall(answer[start : start + 7])

        thread = threading.Thread(target=serve)
        thread.start()
        yield KafkaSettings(bootstrap_servers=f"127.0.0.1:{server.getsockname()[1]},other:1")
        thread.join(10)


def test_the_answer_of_a_broker_is_read_in_pieces() -> None:
    body = struct.pack(">ihi", 1, 0, 2) + struct.pack(">hhh", 1, 4, 18) + struct.pack(">hhh", 66, 0, 2)

    with answering(struct.pack(">i", len(body)) + body) as settings:
        assert kafka_version(settings) == "4.0 or newer"


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x00\x00\x00\x0a" + b"\x00" * 5]
)
def test_what_is_no_broker_is_an_error_of_the_system(answer: bytes) -> None:
    with answering(answer) as settings, pytest.raises(OSError, match=r"answer|connection"):
        kafka_version(settings)


def test_a_directory_that_cannot_be_written_is_wrong(tmp_path: Path) -> None:
    root = open_data_dir(tmp_path / "data").root
    (root / "log").chmod(0o500)
    expected = State.OK if os.geteuid() == 0 else State.WRONG  # permissions do not bind root

    assert check_data_dir(root)[1].state is expected
