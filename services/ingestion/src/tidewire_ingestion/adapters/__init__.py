"""Concrete adapters of ingestion's ports; only `main` names them."""
