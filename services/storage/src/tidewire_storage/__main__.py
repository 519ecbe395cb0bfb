"""`python -m tidewire_storage` runs the service."""

from tidewire_storage.main import run

run()
