"""Addresses of listeners: how they are written, which are safe without TLS, and what to say when one cannot be had."""

import errno
import ipaddress
import socket

from tidewire_kit.errors import FailedPrecondition, InvalidArgument


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address. Names other than `localhost` are not looked up: no."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def join_address(host: str, port: int) -> str:
    """Returns `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def advertised(address: str, advertise_host: str | None) -> str:
    """Returns the address to tell others for a listener's: the given host, or this machine's name for "any"."""
    host, _, port = address.rpartition(":")
    if advertise_host is not None:
        return join_address(advertise_host, int(port))
    try:
        anywhere = ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        anywhere = False
    return join_address(socket.gethostname(), int(port)) if anywhere else address


def local(address: str) -> str:
    """Returns the address by which this machine reaches a listener's: loopback for "any", whatever its name is."""
    host, _, port = address.rpartition(":")
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return address
    if not found.is_unspecified:
        return address
    return join_address("127.0.0.1" if found.version == 4 else "::1", int(port))


def check_listener(host: str, *, secure: bool, insecure_allowed: bool) -> None:
    """Raises InvalidArgument for a listener on another address than loopback without TLS."""
    if secure or insecure_allowed or is_loopback(host):
        return
    raise InvalidArgument(
        "TIDEWIRE_HOST",
        f"{host} is not loopback, so tokens would cross the network in the clear; set TIDEWIRE_TLS_CERT_FILE and "
        "TIDEWIRE_TLS_KEY_FILE, or TIDEWIRE_INSECURE=true if something else encrypts",
    )


def probe(host: str, port: int) -> None:
    """Binds the address and lets it go again; OSError when it cannot be had. gRPC itself does not say why."""
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[
        0
    ]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)


def bind_error(address: str, variable: str, error: OSError) -> FailedPrecondition:
    """Returns what to raise when `address` cannot be bound; `variable` is the setting of its port."""
    if error.errno == errno.EADDRINUSE:
        return FailedPrecondition(
            f"{address} is in use by another process; stop it, or set {variable} to another port (0: a free one)",
            reason="ADDRESS_IN_USE",
            subject=address,
        )
    return FailedPrecondition(
        f"cannot listen on {address}: {error.strerror}; correct TIDEWIRE_HOST or {variable}",
        reason="ADDRESS_UNUSABLE",
        subject=address,
    )
