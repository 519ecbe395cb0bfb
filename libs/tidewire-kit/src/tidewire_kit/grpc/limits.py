"""The limit of a message's size, and the error for what is above it.

gRPC itself ends a call whose message is above its limit with a text that names neither remedy nor reason. So the
library is given twice our limit, and what lies between is refused by `service_handler` with a proper error.
"""

from typing import ClassVar, Final

from tidewire_kit.errors import TidewireError

MAX_MESSAGE_BYTES: Final = 4 << 20
"""Largest request: 4 MiB."""
TRANSPORT_MAX_BYTES: Final = 2 * MAX_MESSAGE_BYTES


class MessageTooLarge(TidewireError):
    """A request of more than 4 MiB."""

    grpc_code: ClassVar[str] = "RESOURCE_EXHAUSTED"

    def __init__(self, size: int) -> None:
        super().__init__(
            f"the message has {size} bytes; the most is {MAX_MESSAGE_BYTES} (4 MiB): send it in smaller parts",
            reason="MESSAGE_TOO_LARGE",
            metadata={"size_bytes": str(size), "limit_bytes": str(MAX_MESSAGE_BYTES)},
        )
