"""Concrete adapters; named by `main` only."""
