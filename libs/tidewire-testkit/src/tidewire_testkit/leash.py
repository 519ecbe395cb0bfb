"""Starts processes that the kernel kills when the one that asked for them ends, however that ends.

Used for servers and for platforms under test, so that a test run that is killed leaves nothing behind. Also a script,
which ties itself to its parent and becomes the command: leash.py PID COMMAND... with the pid of the caller. The
standard library alone.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PR_SET_PDEATHSIG = 1

_STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")
"""The kernel ties a leashed process to the *thread* that started it, so this one lives as long as the process."""


def start_leashed(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a command in a session of its own that is killed with this process. `options`: as of Popen."""
    leash = [sys.executable, "-I", __file__, str(os.getpid())]
    return _STARTER.submit(start_free, [*leash, *command], **options).result()


def start_free(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a command in a session of its own that outlives this process."""
    return subprocess.Popen(command, start_new_session=True, **options)


def main() -> None:
    """Ties this process to its parent, then becomes the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the process that asked for this has ended")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
