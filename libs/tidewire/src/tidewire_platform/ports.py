"""Finds out before anything starts whether the wanted ports are free, so that the message can name port and remedy."""

import errno
import socket
from collections.abc import Iterable

from tidewire_kit.errors import FailedPrecondition
from tidewire_platform.specs import ProcessSpec


def check_ports(specs: Iterable[ProcessSpec]) -> None:
    """Raises FailedPrecondition (reason PORT_IN_USE, HOST_UNUSABLE) for the first port that cannot be listened on."""
    for spec in specs:
        for port, option in ((spec.port, "port"), (spec.metrics_port, "metrics-port")):
            if port:
                _check_port(spec.host, port, f"--{spec.service}-{option}")


def _check_port(host: str, port: int, option: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise FailedPrecondition(
                    f"port {port} on {host} is in use by another process. Choose another with {option} PORT, "
                    "or let the platform take free ones with --free-ports",
                    reason="PORT_IN_USE",
                    subject=f"{host}:{port}",
                ) from None
            raise FailedPrecondition(
                f"cannot listen on {host} port {port}: {error.strerror or error}. "
                f"Choose another with --host HOST or {option} PORT",
                reason="HOST_UNUSABLE",
                subject=f"{host}:{port}",
            ) from None
