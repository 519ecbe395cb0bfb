"""gRPC: serving (`Server`, `service_handler`), calling (`channel`), and errors as statuses."""

from tidewire_kit.grpc.call import Call
from tidewire_kit.grpc.channel import TokenFile, TokenSource, channel
from tidewire_kit.grpc.guard import Guard
from tidewire_kit.grpc.handler import Access, service_handler
from tidewire_kit.grpc.health import Check, Health
from tidewire_kit.grpc.limits import MAX_MESSAGE_BYTES, MessageTooLarge
from tidewire_kit.grpc.server import Server, ServerSettings
from tidewire_kit.grpc.status import ERROR_DOMAIN, from_rpc_error, to_status
from tidewire_kit.grpc.tls import TlsFiles, channel_credentials, tls_files

__all__ = [
    "ERROR_DOMAIN",
    "MAX_MESSAGE_BYTES",
    "Access",
    "Call",
    "Check",
    "Guard",
    "Health",
    "MessageTooLarge",
    "Server",
    "ServerSettings",
    "TlsFiles",
    "TokenFile",
    "TokenSource",
    "channel",
    "channel_credentials",
    "from_rpc_error",
    "service_handler",
    "tls_files",
    "to_status",
]
