"""Which Kafka answers, by its protocol: brokers say which requests they know, and nothing else of their version.

Used by `kafka`. The client library asks the same question and keeps the answer to itself.
"""

import socket
import ssl
import struct
from typing import Final

from tidewire_kit.log.kafka import KafkaSettings

SECONDS: Final = 5.0
_API_VERSIONS: Final = 18
_FETCH: Final = 1
_LIST_TRANSACTIONS: Final = 66
_MOST_BYTES: Final = 1 << 20

Ranges = dict[int, tuple[int, int]]
"""Request → (lowest, highest version of it that the broker knows)."""


def kafka_version(settings: KafkaSettings) -> str:
    """Returns `4.0 or newer`, `3.x` or `older than 3.0`; OSError when the first broker named cannot be asked.

    Blocks. The question is allowed before any password.
    """
    first = settings.bootstrap_servers.split(",")[0].strip()
    host, _, port = first.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS) as plain:
        if settings.security_protocol not in ("SSL", "SASL_SSL"):
            return named(_ask(plain))
        context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
        if settings.cert_file is not None and settings.key_file is not None:
            context.load_cert_chain(str(settings.cert_file), str(settings.key_file))
        with context.wrap_socket(plain, server_hostname=host.strip("[]")) as secured:
            return named(_ask(secured))


def named(ranges: Ranges) -> str:
    """The version that knows these requests: 4.0 ceased to know the oldest ones, 3.0 brought transactions' lists."""
    if ranges.get(_FETCH, (0, 0))[0] >= 4:
        return "4.0 or newer"
    return "3.x" if _LIST_TRANSACTIONS in ranges else "older than 3.0"


def _ask(connection: socket.socket) -> Ranges:
    # Request: length, then key, version 0, correlation id, no client id. Answer: length, correlation id, error, ranges.
    connection.sendall(struct.pack(">ihhih", 10, _API_VERSIONS, 0, 1, -1))
    (length,) = struct.unpack(">i", _read(connection, 4))
    if not 10 <= length <= _MOST_BYTES:
        raise OSError("the answer is not Kafka's")
    answer = _read(connection, length)
    _, error, count = struct.unpack_from(">ihi", answer)
    if error or 10 + 6 * count > length:
        raise OSError(f"the answer is not understood (error {error})")
    entries = struct.iter_unpack(">hhh", answer[10 : 10 + 6 * count])
    return {key: (lowest, highest) for key, lowest, highest in entries}


def _read(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise OSError("the connection was closed")
        parts += part
    return bytes(parts)
