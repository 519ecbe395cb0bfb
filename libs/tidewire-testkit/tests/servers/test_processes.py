"""What keeps test servers from staying behind, with a process that costs nothing in the place of a server."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidewire_testkit.polling import until_sync
from tidewire_testkit.servers.processes import Node, ServerError, keep_logs

SERVER = "import sys, time; print('serving', flush=True); time.sleep(1000)"


def node_in(home: Path, program: str = SERVER, *, leashed: bool = True) -> Node:
    home.mkdir(exist_ok=True)
    return Node(home, "127.0.0.1", [sys.executable, "-c", program, str(home)], leashed=leashed)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = node_in(tmp_path / "node1")
    node.start()
    until_sync(lambda: "serving" in node.log_tail())
    yield node
    node.kill()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_server_dies_with_the_process_that_started_it_even_by_sigkill(tmp_path: Path) -> None:
    home = tmp_path / "node1"
    home.mkdir()
    starter = f"""
import sys, time
from pathlib import Path
from tidewire_testkit.servers.processes import Node
Node(Path(sys.argv[1]), "127.0.0.1", [sys.executable, "-c", {SERVER!r}, sys.argv[1]], leashed=True).start()
time.sleep(1000)
"""
    process = subprocess.Popen([sys.executable, "-c", starter, str(home)])
    seen = node_in(home)
    until_sync(lambda: "serving" in seen.log_tail())
    assert seen.pid is not None

    process.kill()
    process.wait()

    until_sync(lambda: seen.pid is None, message="the server is gone")


def test_a_server_does_not_die_with_the_thread_that_started_it(tmp_path: Path) -> None:
    node = node_in(tmp_path / "node1")
    starter = threading.Thread(target=node.start)
    starter.start()
    until_sync(lambda: "serving" in node.log_tail())
    starter.join()
    assert node.pid is not None

    node.suspend()  # a signal that was on its way would have come before
    until_sync(lambda: node.pid is not None and state(node.pid) == "T")
    node.kill()


def test_another_process_finds_and_stops_what_one_has_started(node: Node) -> None:
    other = node_in(node.home)

    assert other.pid == node.pid is not None
    other.stop()

    until_sync(lambda: node.pid is None)
    assert not (node.home / "pid").exists()


def test_a_pid_that_belongs_to_something_else_by_now_is_not_touched(tmp_path: Path) -> None:
    node = node_in(tmp_path / "node1")
    (node.home / "pid").write_text(str(os.getpid()))

    assert node.pid is None
    node.kill()


def test_a_suspended_server_runs_on_when_resumed_and_can_be_killed_when_not(node: Node) -> None:
    assert node.pid is not None
    node.suspend()
    until_sync(lambda: state(node.pid or 0) == "T")
    node.resume()
    until_sync(lambda: state(node.pid or 0) == "S")
    node.suspend()

    node.kill()

    assert node.pid is None


def test_a_server_that_ignores_sigterm_is_killed_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidewire_testkit.servers.processes.STOP_SECONDS", 0.3)
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('serving', flush=True)\n"
    )
    node = node_in(tmp_path / "node1", f"{stubborn}time.sleep(1000)")
    node.start()
    until_sync(lambda: "serving" in node.log_tail())

    node.stop()

    assert node.pid is None


def test_a_server_that_ends_by_itself_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    node = node_in(tmp_path / "node1", "import sys; sys.exit('cannot bind')")
    node.start()
    until_sync(lambda: node.pid is None)

    with pytest.raises(ServerError, match="cannot bind"):
        node.check_running()
    keep_logs([node], tmp_path / "kept")
    assert "cannot bind" in (tmp_path / "kept" / "node1.log").read_text()
