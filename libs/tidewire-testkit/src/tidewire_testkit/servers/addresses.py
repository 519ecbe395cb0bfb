"""Addresses on which a cluster can listen: each cluster has a block of its own, so that all may use the usual ports."""

import ipaddress
import secrets
import socket


def addresses_from(first: str, nodes: int) -> list[str]:
    """`nodes` consecutive IPv4 addresses, the first one given."""
    start = ipaddress.IPv4Address(first)
    return [str(start + number) for number in range(nodes)]


def free_address(nodes: int, ports: tuple[int, ...]) -> str:
    """The first of `nodes` consecutive loopback addresses on which all `ports` are free.

    Chosen at random among 65,000 blocks, so that processes which ask at the same moment do not meet.
    """
    while True:
        first = f"127.{1 + secrets.randbelow(254)}.{secrets.randbelow(256)}.1"
        if all(is_free(address, port) for address in addresses_from(first, nodes) for port in ports):
            return first


def is_free(address: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            return False
        return True
