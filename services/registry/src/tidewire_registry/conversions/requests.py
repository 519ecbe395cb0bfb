"""`request_id`s of mutations → the key by which they are remembered."""

import hashlib

from google.protobuf.message import Message

from tidewire_registry.application.requests import RequestKey, check_request_id


def request_key(request: Message, request_id: str) -> RequestKey | None:
    """The key of a request; None when it has no `request_id`. InvalidArgument when that is not a UUID."""
    if not request_id:
        return None
    check_request_id(request_id)
    digest = hashlib.blake2b(request.SerializeToString(deterministic=True), digest_size=16)
    digest.update(request.DESCRIPTOR.full_name.encode())
    return RequestKey(request_id.lower(), digest.digest())
