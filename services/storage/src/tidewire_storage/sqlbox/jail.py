"""Takes from the process what a statement has no need of, so that an escape from DuckDB leads nowhere.

The kernel does it: a list of the system calls that are allowed (seccomp), limits of resources, no new privileges. None
of it needs a privilege, and all of it works in a pod of the `restricted` standard. What is open stays usable (the one
socket); nothing can be opened, connected, started or signalled any more.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _THIRD_ARGUMENT_AT = 0, 4, 32
_PROT_EXEC = 4
_M_ARENA_MAX = -8

# read write close fstat lseek readv writev, poll select, brk munmap mremap madvise, rt_sigaction rt_sigprocmask
# rt_sigreturn sigaltstack, sched_yield sched_getaffinity futex membarrier rseq, nanosleep clock_nanosleep
# clock_gettime clock_getres times, getpid gettid getrusage sysinfo getrandom restart_syscall, sendto recvfrom, exit
# exit_group
_X86_64: tuple[int, ...] = (
    0,
    1,
    3,
    5,
    8,
    19,
    20,
    7,
    23,
    12,
    11,
    25,
    28,
    13,
    14,
    15,
    131,
    24,
    204,
    202,
    324,
    334,
)
_X86_64 += (35, 230, 228, 229, 100, 39, 186, 98, 99, 318, 219, 44, 45, 60, 231)
_AARCH64: tuple[int, ...] = (
    63,
    64,
    57,
    80,
    62,
    65,
    66,
    73,
    72,
    214,
    215,
    216,
    233,
    134,
    135,
    139,
    132,
    124,
    123,
    98,
    283,
    293,
)
_AARCH64 += (101, 115, 113, 114, 153, 172, 178, 165, 179, 278, 128, 206, 207, 93, 94)
_MACHINES = {
    "x86_64": (0xC000003E, _X86_64, (9, 10)),
    "aarch64": (0xC00000B7, _AARCH64, (222, 226)),
}
"""Audit architecture, allowed calls, and (mmap, mprotect), which are allowed unless the memory is to be executed."""


class JailError(Exception):
    """This kernel or machine cannot confine the process."""


def die_with(parent: int) -> None:
    """From now on the process ends when the one that started it does."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it ended before


def one_heap() -> None:
    """From now on threads share one heap, of those that come later too.

    Else the C library reserves 64 MiB of addresses and more for each thread, when it first asks for memory. DuckDB
    starts threads of its own even where it is to use one; on a busy machine they first run when `lock` has counted
    already. What was left for the statement went to them, and the process ended by itself, with status 127 for one.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    except AttributeError:
        pass  # a C library that has one heap anyway


def lock(more_memory_bytes: int, cpu_seconds: int) -> None:
    """Gives everything up for good; memory may grow by so much. Raises JailError, also when in doubt."""
    try:
        _lock(more_memory_bytes, cpu_seconds)
    except (OSError, ValueError) as error:
        raise JailError(f"the process cannot be confined here: {error}") from error
    try:
        os.close(os.open("/", os.O_RDONLY))
    except PermissionError:
        return
    except OSError as error:
        raise JailError(f"the process is not confined as it should be: {error}") from error
    raise JailError("the kernel took the list of system calls and does not hold to it")


def _lock(more_memory_bytes: int, cpu_seconds: int) -> None:
    _first_to_go()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + more_memory_bytes
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (most, most))
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _filter_calls()


def _first_to_go() -> None:
    """When memory is short the kernel ends this process rather than one that keeps data."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass  # a kindness to the rest of the pod, not a wall


def _filter_calls() -> None:
    known = _MACHINES.get(platform.machine())
    if known is None or struct.calcsize("P") != 8:
        raise JailError(f"system calls cannot be confined on {platform.machine()}; use x86_64 or aarch64")
    arch, allowed, mapping = known
    lines = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for number in allowed:
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    lines += [
        (_EQUAL, 2, 0, mapping[0]),
        (_EQUAL, 1, 0, mapping[1]),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _THIRD_ARGUMENT_AT),
        (_ANY_BIT, 0, 1, _PROT_EXEC),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    program = ctypes.create_string_buffer(struct.pack("HP", len(lines), ctypes.addressof(code)))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))


def _prctl(option: int, first: int, second: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_ulong(word) for word in (first, second, 0, 0)]
    if libc.prctl(ctypes.c_int(option), *words):
        number = ctypes.get_errno()
        raise JailError(f"the kernel refuses prctl({option}): {os.strerror(number)}")
