"""Tests of the whole platform over its processes: start it, talk to it, disturb it, check what it promised."""
