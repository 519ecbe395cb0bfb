"""Topics as they are and as they shall be: the plan, and carrying it out. `tidewire topic plan|apply` and
`KafkaLog.ensure_topics` use it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tidewire_kit.log.kafka.settings import KafkaSettings
from tidewire_kit.log.port import TopicSpec


class Action(StrEnum):
    """What is to be done about a topic."""

    NONE = "none"
    """It is as it shall be."""
    CREATE = "create"
    ALTER = "alter"
    """A setting that can be changed in place differs."""
    REFUSE = "refuse"
    """It differs in what cannot be changed; the reason names the remedy."""


@dataclass(frozen=True, slots=True)
class TopicStep:
    """What the plan says of one topic."""

    topic: str
    """Its name in the cluster, with the prefix."""
    action: Action
    details: tuple[str, ...]
    """For people: what will be set or changed, or why it is refused and what to do."""


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One step per topic asked for, in that order."""

    steps: tuple[TopicStep, ...]

    @property
    def changes(self) -> tuple[TopicStep, ...]:
        """What `apply` would do."""
        return tuple(step for step in self.steps if step.action in (Action.CREATE, Action.ALTER))

    @property
    def refusals(self) -> tuple[TopicStep, ...]:
        """What stands in the way: `apply` does nothing while there is any."""
        return tuple(step for step in self.steps if step.action is Action.REFUSE)


async def plan(settings: KafkaSettings, specs: Sequence[TopicSpec]) -> TopicPlan:
    """Compares the cluster's topics with `specs`; changes nothing. Raises what `KafkaLog.start` raises."""
    raise NotImplementedError


async def apply(settings: KafkaSettings, specs: Sequence[TopicSpec]) -> TopicPlan:
    """Creates what is missing and alters what differs; returns the plan that was carried out.

    Raises TopicMismatch with all refusals and then has changed nothing; FailedPrecondition (TOO_FEW_BROKERS).
    """
    raise NotImplementedError
