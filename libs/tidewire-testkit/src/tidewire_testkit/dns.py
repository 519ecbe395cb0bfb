"""A name server for one name, whose addresses a test changes as pods come and go."""

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

_A, _IN = 1, 1


class Names(asyncio.DatagramProtocol):
    """Answers questions for IPv4 addresses, of any name, with `addresses`; all other questions with nothing."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = list(addresses)
        self.asked = 0
        """Questions for IPv4 addresses so far."""
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of the protocol."""
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        """Of the protocol: answers a question."""
        end = data.index(b"\0", 12) + 5  # the name ends with an empty label; then type and class
        kind = struct.unpack(">H", data[end - 4 : end - 2])[0]
        found = self.addresses if kind == _A else []
        self.asked += kind == _A
        head = data[:2] + struct.pack(">HHHHH", 0x8580, 1, len(found), 0, 0)
        answers = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", _A, _IN, 0, 4) + bytes(map(int, address.split(".")))
            for address in found
        )
        assert self._transport is not None
        self._transport.sendto(head + data[12:end] + answers, sender)


@asynccontextmanager
async def names(*addresses: str) -> AsyncIterator[Names]:
    """A name server on a free port of loopback, within the block."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: Names(addresses), ("127.0.0.1", 0))
    server.port = transport.get_extra_info("sockname")[1]
    try:
        yield server
    finally:
        transport.close()
