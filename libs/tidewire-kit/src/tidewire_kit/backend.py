"""Which message log a process gets: files in the data directory, or Kafka. The only module that names both.

Composition roots call it: `tidewire_kit.service` for the services, `tidewire_platform` for the operator's commands. The
drivers of Kafka and Cassandra are imported only when the distributed backend is chosen: they would cost an embedded
platform a third of its start.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from tidewire_kit import topics
from tidewire_kit.datadir import DataDir
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.log.port import MessageLog, TopicSpec
from tidewire_kit.settings import CommonSettings, SettingsClass, load


def open_log(
    common: CommonSettings, environ: Mapping[str, str], data_dir: DataDir, metrics: CollectorRegistry | None
) -> MessageLog:
    """Returns the log of the chosen backend, not yet started. Raises InvalidArgument for its settings."""
    if common.backend == "distributed":
        from tidewire_kit.log.kafka import KafkaLog, KafkaSettings

        return KafkaLog(load(KafkaSettings, environ), registry=metrics)
    from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings

    return EmbeddedLog(data_dir.root, EmbeddedLogSettings(log_cap_bytes=common.log_cap_bytes or None))


def topic_specs(common: CommonSettings, environ: Mapping[str, str]) -> list[TopicSpec]:
    """Returns the platform's topics with the backend's number of partitions: TIDEWIRE_PARTITIONS on one machine,
    TIDEWIRE_KAFKA_PARTITIONS on Kafka."""
    if common.backend == "distributed":
        from tidewire_kit.log.kafka.settings import KafkaSettings

        return topics.specs(load(KafkaSettings, environ).partitions)
    return topics.specs(common.partitions)


def settings_classes(common: CommonSettings) -> Sequence[type[SettingsClass]]:
    """Returns the settings that the backend reads besides the shared ones."""
    if common.backend == "distributed":
        from tidewire_kit.cassandra.settings import CassandraSettings
        from tidewire_kit.log.kafka.settings import KafkaSettings

        return (KafkaSettings, CassandraSettings)
    return ()


def check_settings(common: CommonSettings, environ: Mapping[str, str]) -> None:
    """Raises InvalidArgument for the first setting of the backend that is wrong, or missing where it must be given.

    The token of the services is made in the data directory on one machine; processes on several share no directory.
    """
    for cls in settings_classes(common):
        load(cls, environ)
    if common.backend != "distributed":
        return
    check_given(
        "TIDEWIRE_SERVICE_TOKEN_FILE",
        common.service_token_file,
        "the token by which services call one another",
    )


def check_given(variable: str, path: Path | None, what: str) -> Path:
    """Returns the file; raises InvalidArgument when one that the distributed backend needs is not named or cannot be
    read."""
    if path is None:
        raise InvalidArgument(
            variable,
            f"is not set; the distributed backend needs {what}: make it once with `tidewire admin bootstrap` and give "
            "the same file to every process",
        )
    try:
        path.read_bytes()
    except OSError as error:
        raise InvalidArgument(
            variable, f"{path} cannot be read ({error.strerror}); name the file that holds {what}"
        ) from None
    return path
