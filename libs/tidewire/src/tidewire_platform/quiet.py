"""Keeps the drivers' own logs off the terminal: a command says itself, once and with the remedy, what went wrong."""

import logging

from tidewire_kit.observability import logs


def quiet() -> None:
    """Shows only errors, on standard error. For commands that use Kafka or Cassandra in their own process."""
    logs.configure("tidewire", level="error", form="console")
    # It repeats each failed connection many times a second; what it means is raised as one error.
    logging.getLogger("tidewire_kit.log.kafka.client").setLevel(logging.CRITICAL)
