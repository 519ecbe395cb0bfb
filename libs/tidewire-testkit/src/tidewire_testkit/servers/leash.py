"""Runs a command that the kernel kills when the process that asked for it ends, however that ends.

Called as a script by `processes`: leash.py PID COMMAND... with the pid of the caller. The standard library alone.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


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
