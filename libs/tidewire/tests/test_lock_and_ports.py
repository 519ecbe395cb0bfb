import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tidewire_kit.errors import FailedPrecondition
from tidewire_platform.lock import ExclusiveLock, lock_holder
from tidewire_platform.ports import check_ports
from tidewire_platform.specs import ProcessSpec

HOLD = """
import sys, pathlib
from tidewire_platform.lock import ExclusiveLock
with ExclusiveLock(pathlib.Path(sys.argv[1]), command="tidewire up", remedy="-"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock_path(tmp_path: Path) -> Path:
    (tmp_path / "data" / "run").mkdir(parents=True)
    return tmp_path / "data" / "run" / "up.lock"


def test_a_second_one_is_refused_by_name_and_a_crash_frees_the_lock(lock_path: Path) -> None:
    assert lock_holder(lock_path) is None
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        found = lock_holder(lock_path)
        assert found is not None
        assert (found.pid, found.command) == (holder.pid, "tidewire up")
        second = ExclusiveLock(lock_path, command="tidewire demo", remedy="Stop that one first")
        with (
            pytest.raises(
                FailedPrecondition, match=rf"`tidewire up`, process {holder.pid}. Stop that"
            ) as caught,
            second,
        ):
            pass
        assert caught.value.reason == "PLATFORM_RUNNING"
        assert str(lock_path.parent.parent) in caught.value.message
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    with second:
        assert lock_holder(lock_path) is not None


def test_a_port_in_use_is_named_with_the_option_that_changes_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        spec = ProcessSpec("storage", "storage", "127.0.0.1", 0, port)
        with pytest.raises(
            FailedPrecondition, match=rf"port {port} on 127.0.0.1 .*--storage-metrics-port"
        ) as caught:
            check_ports([ProcessSpec("registry", "registry", "127.0.0.1", 0, 0), spec])
        assert caught.value.reason == "PORT_IN_USE"
    check_ports([spec])


def test_a_host_that_is_not_ours_is_named() -> None:
    with pytest.raises(FailedPrecondition, match=r"cannot listen on 192\.0\.2\.1"):
        check_ports([ProcessSpec("registry", "registry", "192.0.2.1", 7001, 0)])
