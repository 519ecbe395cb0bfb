"""Starts one service so that it cannot outlive the process that started it; used by `process` and by nobody else.

`python -m tidewire_platform.child PARENT_PID MODULE` asks the kernel to send SIGTERM when the parent dies, however that
comes about, and then becomes `python -m MODULE` in the same process. Doing this here and not in a hook between fork
and exec keeps the parent, which has gRPC's threads, free of code that runs in a forked copy of it.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Reads the two arguments, ties this process to its parent and runs the module as `__main__`."""
    parent_pid, module = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before the line above took hold
        sys.exit(1)
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
