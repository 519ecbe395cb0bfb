"""The embedded message log: segment files and SQLite in one data directory, shared by the processes of one machine.

appender, recovery, tail, segments, frames, files,
quick                                                the files of a stream topic, written
reader                                               ... and read
committer, capacity, retention, topic                group commit; room; removal
meta_thread, meta, table                             offsets, groups and compacted topics in SQLite
wake, members, assignment, ownership, consumer       readers: woken, alive, assigned, locked, polling
log, settings                                        all of it behind the port
"""

from tidewire_kit.log.embedded.log import EmbeddedLog
from tidewire_kit.log.embedded.settings import EmbeddedLogSettings

__all__ = ["EmbeddedLog", "EmbeddedLogSettings"]
