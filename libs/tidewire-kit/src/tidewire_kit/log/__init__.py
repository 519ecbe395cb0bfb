"""The message log: the port that the whole platform programs against, and its errors.

Concrete logs are chosen in a process's composition root: `tidewire_kit.log.embedded.EmbeddedLog`.
"""

from tidewire_kit.log.errors import LogCorrupt, LogFull, NotOwner, TopicMismatch, UnknownTopic
from tidewire_kit.log.port import (
    MAX_RECORD_BYTES,
    NO_HEADERS,
    Buffer,
    Buffers,
    Consumer,
    LogRecord,
    Member,
    MemberProfile,
    MessageLog,
    Outgoing,
    RebalanceHandler,
    TableItem,
    TableReader,
    TopicPartition,
    TopicSpec,
)

__all__ = [
    "MAX_RECORD_BYTES",
    "NO_HEADERS",
    "Buffer",
    "Buffers",
    "Consumer",
    "LogCorrupt",
    "LogFull",
    "LogRecord",
    "Member",
    "MemberProfile",
    "MessageLog",
    "NotOwner",
    "Outgoing",
    "RebalanceHandler",
    "TableItem",
    "TableReader",
    "TopicMismatch",
    "TopicPartition",
    "TopicSpec",
    "UnknownTopic",
]
