"""Warns of settings that nobody reads, before a command starts: a misspelt variable would silently be the default.

The services warn too, in their logs, where somebody at a terminal does not look.
"""

import sys
from collections.abc import Mapping

_OF_CLIENTS = frozenset(
    f"TIDEWIRE_{name}" for name in ("ENDPOINT", "TOKEN", "TOKEN_FILE", "TENANT", "CONTEXT", "CA_FILE")
)


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """A line per variable that looks like a setting and is none."""
    given = {name: "" for name in environ if name.startswith("TIDEWIRE_") and name not in _OF_CLIENTS}
    if not given:
        return []  # the usual case, which shall not wait for the imports
    from tidewire_ingestion.settings import Settings as IngestionSettings
    from tidewire_kit.cassandra.settings import CassandraSettings
    from tidewire_kit.log.kafka.settings import KafkaSettings
    from tidewire_kit.settings import CommonSettings, unknown_variables
    from tidewire_platform.settings import UpSettings
    from tidewire_registry.settings import Settings as RegistrySettings
    from tidewire_storage.settings import Settings as StorageSettings

    own = (CommonSettings, UpSettings, KafkaSettings, CassandraSettings)
    unknown = unknown_variables(given, [*own, RegistrySettings, IngestionSettings, StorageSettings])
    return [
        f"nothing reads {variable}" + (f"; is {near} meant?" if near else "")
        for variable, near in sorted(unknown.items())
    ]


def warn_of_misspelt(environ: Mapping[str, str]) -> None:
    """Prints them on standard error."""
    for line in misspelt(environ):
        print(f"Warning: {line}", file=sys.stderr)
