"""`python -m tidewire_cli` is `tidewire`."""

from tidewire_cli.main import run

run()
