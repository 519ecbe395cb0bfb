"""A statement from a process that is confined as a pod's are: `python sql_in_a_container.py MODE`, for test_sql.py.

container: no capability, no new privileges, and calls refused as container runtimes refuse them by default; prints the
statement's result. no-filters, no-limits: where filters of system calls or limits of resources cannot be set; prints
the reason of the error.
"""

import asyncio
import ctypes
import io
import os
import platform
import struct
import sys
from typing import Any, cast

import pyarrow as pa

from tidewire_kit.errors import TidewireError
from tidewire_kit.ids import TenantId, new_uid
from tidewire_storage.adapters import sql_process
from tidewire_storage.application.run_sql import RunSql, SqlLimits

_CAPBSET_DROP, _SET_NO_NEW_PRIVS, _SET_SECCOMP, _CAP_LAST = 24, 38, 22, 40
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001
_CALLS = {
    # prctl, prlimit64; then ptrace mount umount2 swapon reboot init_module add_key request_key keyctl unshare
    # perf_event_open setns kexec_load bpf userfaultfd open_by_handle_at process_vm_readv process_vm_writev
    "x86_64": (
        157,
        302,
        (101, 165, 166, 167, 169, 175, 248, 249, 250, 272, 298, 308, 246, 321, 323, 304, 310, 311),
    ),
    "aarch64": (
        167,
        261,
        (117, 40, 39, 224, 142, 105, 217, 218, 219, 97, 241, 268, 104, 280, 282, 265, 270, 271),
    ),
}


def _filter(lines: list[tuple[int, int, int, int]]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    program = ctypes.create_string_buffer(struct.pack("HP", len(lines), ctypes.addressof(code)))
    zero, one = ctypes.c_ulong(0), ctypes.c_ulong(1)
    for capability in range(_CAP_LAST + 1):
        libc.prctl(
            _CAPBSET_DROP, ctypes.c_ulong(capability), zero, zero, zero
        )  # refused to who has none: as well
    assert libc.prctl(_SET_NO_NEW_PRIVS, one, zero, zero, zero) == 0
    address = ctypes.c_ulong(ctypes.addressof(program))
    assert libc.prctl(_SET_SECCOMP, ctypes.c_ulong(2), address, zero, zero) == 0


def confine(mode: str) -> None:
    prctl, prlimit, others = _CALLS[platform.machine()]
    refuse = (_RETURN, 0, 0, _REFUSE)
    lines = [(_LOAD, 0, 0, 0)]
    for number in (*others, *((prlimit,) if mode == "no-limits" else ())):
        lines += [(_EQUAL, 0, 1, number), refuse]
    if mode == "no-filters":
        lines += [(_EQUAL, 0, 3, prctl), (_LOAD, 0, 0, 16), (_EQUAL, 0, 1, _SET_SECCOMP), refuse]
    _filter([*lines, (_RETURN, 0, 0, _ALLOW)])


class _Names:
    def tenant(self, tenant: TenantId) -> None:
        """Every tenant is there."""


async def main() -> None:
    run_sql = RunSql(
        cast(Any, _Names()), cast(Any, None), sql_process.launch, SqlLimits(), lambda *seen: None
    )
    try:
        parts = [part async for part in run_sql.run(TenantId(new_uid()), "SELECT 42 AS a")]
    except TidewireError as error:
        print(error.reason)
    else:
        print(*pa.ipc.open_stream(io.BytesIO(b"".join(parts))).read_all()["a"].to_pylist())


if sys.argv[1:2] != ["inside"]:
    confine(sys.argv[1])
    os.execv(sys.executable, [sys.executable, __file__, "inside"])  # now without capabilities
asyncio.run(main())
