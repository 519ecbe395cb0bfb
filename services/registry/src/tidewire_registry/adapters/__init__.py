"""Implementations of the ports. Only `main` (and `bootstrap`) name them."""
