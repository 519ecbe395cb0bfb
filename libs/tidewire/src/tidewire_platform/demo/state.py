"""What the demo remembers between runs, so that it resumes and imports nothing twice: `DATA_DIR/demo/state.json`."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tidewire_kit.errors import FailedPrecondition

FORMAT = 1


@dataclass(slots=True)
class DemoState:
    """Progress within one tenant. A tenant that was deleted and made again has another uid, and starts anew."""

    tenant_uid: str
    """32 hexadecimal digits."""
    keep_times: bool
    """Whether the real readings keep their own times."""
    shift_us: dict[str, int] = field(default_factory=dict)
    """Device → what is added to the times of its readings, in microseconds."""
    rows_done: dict[str, int] = field(default_factory=dict)
    """Device → rows, from the first on, that were acknowledged."""
    replay_us: dict[str, int] = field(default_factory=dict)
    """Device → how far the replay has come, as (shifted) time of the readings, unix µs."""


class StateFile:
    """Loads and saves a `DemoState`. Saving replaces the file, so a crash leaves the old one or the new one."""

    def __init__(self, data_dir: Path) -> None:
        """Makes `DATA_DIR/demo` when it is missing."""
        self._path = data_dir / "demo" / "state.json"
        self._path.parent.mkdir(exist_ok=True)

    def load(self, tenant_uid: str, *, keep_times: bool) -> DemoState:
        """The saved state of this tenant, or a new one.

        FailedPrecondition (reason DEMO_STATE) when the saved one shifts times and this run does not, or the reverse:
        the same readings would then be there at two times.
        """
        try:
            content = json.loads(self._path.read_text())
        except FileNotFoundError:
            return DemoState(tenant_uid, keep_times)
        except ValueError as error:
            raise FailedPrecondition(
                f"{self._path} is damaged ({error}). Remove it; readings that are there already collapse",
                reason="DEMO_STATE",
            ) from None
        if content.pop("format", None) != FORMAT:
            raise FailedPrecondition(
                f"{self._path} was written by another version. Use another --data-dir", reason="DEMO_STATE"
            )
        state = DemoState(**content)
        if state.tenant_uid != tenant_uid:
            return DemoState(tenant_uid, keep_times)
        if state.keep_times != keep_times:
            was, remedy = ("with", "add it") if state.keep_times else ("without", "leave it out")
            raise FailedPrecondition(
                f"this data directory was filled {was} --keep-times: {remedy}, or choose another --data-dir",
                reason="DEMO_STATE",
            )
        return state

    def save(self, state: DemoState) -> None:
        """Writes the state durably."""
        draft = self._path.with_suffix(".new")
        with draft.open("w") as file:
            json.dump({"format": FORMAT, **asdict(state)}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
