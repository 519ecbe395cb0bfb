"""`python -m tidewire_ingestion` runs the service."""

import sys

from tidewire_ingestion.main import run

sys.exit(run())
