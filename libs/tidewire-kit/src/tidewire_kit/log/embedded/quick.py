"""System calls of about a microsecond, made without letting go of the interpreter. Used while a commit is written.

Python lets go of the interpreter around every system call. Getting it back while the event loop's thread works costs
two changes of threads and up to a whole switch interval (5 ms) of waiting, so a commit of ten small calls took
milliseconds on a busy process. Only calls that cannot wait belong here; each has its ordinary version to fall back to.
"""

import ctypes
import fcntl
import os

_flock = _pread = None
try:
    _libc = ctypes.PyDLL(None)  # of the two loaders, the one that keeps the interpreter
    _flock = _libc.flock
    _flock.argtypes = (ctypes.c_int, ctypes.c_int)
    _pread = _libc.pread64 if hasattr(_libc, "pread64") else _libc.pread
    _pread.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64)
    _pread.restype = ctypes.c_ssize_t
except (OSError, AttributeError):  # a system without these under these names
    _flock = _pread = None


def lock(descriptor: int) -> None:
    """Takes the exclusive lock on an open file; waits for it, in the ordinary way, only when somebody holds it."""
    if _flock is None or _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) != 0:
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def unlock(descriptor: int) -> None:
    """Gives the lock back."""
    if _flock is None or _flock(descriptor, fcntl.LOCK_UN) != 0:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def read(descriptor: int, size: int, at: int) -> bytes:
    """Up to `size` bytes from byte `at` of a file, of a page that was written or read lately."""
    if _pread is None:
        return os.pread(descriptor, size, at)
    buffer = ctypes.create_string_buffer(size)
    count = _pread(descriptor, buffer, size, at)
    if count < 0:
        return os.pread(descriptor, size, at)  # to raise what is wrong
    return buffer.raw[:count]
