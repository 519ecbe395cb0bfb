"""How far the import of a file has come, kept so that the next run goes on from there and a third one does nothing.

One small file per (tenant, file, plan) in the state directory. The file's identity is its size, beginning and end, so a
copy or a renamed file is the same file. Called by `run`.
"""

import hashlib
import json
import os
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tidewire_cli.importing.blocks import Position
from tidewire_cli.importing.plan import ImportPlan

_NAMESPACE = uuid.UUID("6f0c4a52-57f3-5c1c-9d43-2a8c9b0d4b1e")
_EDGE_BYTES = 65_536


def file_identity(path: Path) -> str:
    """A hash of the file's size, first and last 64 KiB."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_EDGE_BYTES))
        file.seek(max(0, size - _EDGE_BYTES))
        digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()


@dataclass(slots=True)
class ImportState:
    """Progress of one import; `save` after each block whose readings are all acknowledged.

    Attributes:
        key: hash of tenant uid, file and plan.
        position: where the next block begins.
        shift_us: microseconds added to times, settled in the first run.
        rows: rows sent so far.
        accepted: readings accepted.
        refused: readings refused.
        unreadable: cells and rows that could not be read.
        refused_by_reason: the refused readings by their reason.
        problems: line, reason and message of the first thousand things that are not stored.
        problem_count: all of them.
        finished_at: when it came to the end, seconds since 1970; 0: not yet.
        new: whether no earlier run has left anything.
    """

    key: str
    directory: Path | None
    position: Position = field(default_factory=Position)
    shift_us: int = 0
    rows: int = 0
    accepted: int = 0
    refused: int = 0
    unreadable: int = 0
    refused_by_reason: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[int, str, str]] = field(default_factory=list)
    problem_count: int = 0
    finished_at: float = 0.0
    new: bool = True

    @property
    def path(self) -> Path | None:
        """Where it is kept; None: nowhere."""
        return self.directory / f"{self.key[:32]}.json" if self.directory else None

    def batch_id(self, block: int, start: int, stop: int, attempt: str = "") -> uuid.UUID:
        """Id of a batch: the same for the same rows of the same file under the same plan and shift."""
        return uuid.uuid5(_NAMESPACE, f"{self.key}/{self.shift_us}/{block}/{start}/{stop}/{attempt}")

    def save(self) -> None:
        """Writes it, atomically and durably."""
        if self.path is None or self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        said = asdict(self)
        for beside in ("directory", "new"):
            del said[beside]
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(said | {"saved_at": time.time()}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        self.new = False

    def forget(self) -> None:
        """Removes it and starts over."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self.position, self.shift_us, self.new = Position(), 0, True
        self.rows = self.accepted = self.refused = self.unreadable = self.problem_count = 0
        self.refused_by_reason, self.problems = {}, []
        self.finished_at = 0.0


def load_state(plan: ImportPlan, tenant_uid: str, directory: Path | None) -> ImportState:
    """The state an earlier run has left, or a new one. What cannot be read counts as none."""
    key = hashlib.sha256(f"{tenant_uid}/{file_identity(plan.path)}/{plan.fingerprint()}".encode()).hexdigest()
    state = ImportState(key, directory)
    if state.path is None:
        return state
    try:
        said = json.loads(state.path.read_text(encoding="utf-8"))
        state.position = Position(**said["position"])
        for name in ("shift_us", "rows", "accepted", "refused", "unreadable", "finished_at"):
            setattr(state, name, said[name])
        # An earlier release did not keep these.
        state.refused_by_reason = dict(said.get("refused_by_reason", {}))
        state.problems = [(line, reason, message) for line, reason, message in said.get("problems", ())]
        state.problem_count = said.get("problem_count", 0)
        state.new = False
    except (OSError, ValueError, KeyError, TypeError):
        return ImportState(key, directory)
    return state
