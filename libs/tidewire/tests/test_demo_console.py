"""The demo's console when nobody reads on."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from tidewire_platform.demo.console import DemoConsole
console, gone = DemoConsole(), []
console.gone = lambda: gone.append(True)
for _ in range(3):
    console.print("line")
print("to standard error", file=sys.stderr, flush=True)
sys.exit(40 + len(gone))
"""


@pytest.mark.parametrize("shared", [False, True], ids=["out", "out and err"])
def test_it_tells_once_and_prints_to_nowhere(shared: bool) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        errors = write if shared else subprocess.PIPE
        done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=write, stderr=errors, check=False)
    finally:
        os.close(write)
    assert done.returncode == 41
    assert done.stderr == (None if shared else b"to standard error\n")
