"""How a command of a platform under test ended; made by `UpProcess.command`, and by tests that run one themselves."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended and what it wrote."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """What it wrote with `--output json`; AssertionError when it failed."""
        assert self.status == 0, self.err
        return json.loads(self.out)
