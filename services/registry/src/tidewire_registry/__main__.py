"""`python -m tidewire_registry`: the registry service."""

from tidewire_registry.main import run

run()
