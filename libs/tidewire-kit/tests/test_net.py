"""Addresses."""

import socket

import pytest

from tidewire_kit.net import advertised, is_loopback, join_address


@pytest.mark.parametrize(
    ("address", "host", "shown"),
    [
        ("127.0.0.1:7001", None, "127.0.0.1:7001"),
        ("127.0.0.1:7001", "gateway.example.org", "gateway.example.org:7001"),
        ("0.0.0.0:7001", None, f"{socket.gethostname()}:7001"),
        ("[::]:7001", None, f"{socket.gethostname()}:7001"),
        ("0.0.0.0:7001", "2001:db8::1", "[2001:db8::1]:7001"),
        ("localhost:7001", None, "localhost:7001"),
    ],
)
def test_what_others_are_told(address: str, host: str | None, shown: str) -> None:
    assert advertised(address, host) == shown


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "")))
    assert join_address("::1", 1) == "[::1]:1"
