"""What a check of `tidewire doctor` says; made by every check, shown and counted by `run`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and there is something to know or to correct."""
    WRONG = "wrong"
    """Something does not work, or will lose what it promises to keep."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `remedy` is what to do, and is there unless the state is OK."""

    check: str
    """What was looked at: `kafka`, `topics`, `clock` and so on; the same in every run."""
    subject: str
    """Which one of its kind: an address, a topic, a group."""
    state: State
    text: str
    remedy: str = ""

    def shown(self) -> Mapping[str, str]:
        """As a row."""
        return {
            "state": self.state.value,
            "check": self.check,
            "subject": self.subject,
            "text": self.text,
            **({"remedy": self.remedy} if self.remedy else {}),
        }


def ok(check: str, subject: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, subject, State.OK, text)


def warning(check: str, subject: str, text: str, remedy: str) -> Finding:
    """It works, but."""
    return Finding(check, subject, State.WARNING, text, remedy)


def wrong(check: str, subject: str, text: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check, subject, State.WRONG, text, remedy)
