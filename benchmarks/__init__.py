"""Benchmarks of Tidewire: `make bench`."""
