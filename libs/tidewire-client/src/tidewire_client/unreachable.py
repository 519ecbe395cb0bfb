"""Why a connection could not be made, from the words of gRPC to words that say what to do; `status` calls it.

gRPC nests what it knows into one line of text and has no codes for it, so the telling pieces are looked for.
"""

from tidewire_client.errors import Unavailable

_BRIEF = ("Connection refused", "Connection reset", "No route to host", "Name or service not known")
_UNKNOWN_NAME = ("DNS resolution failed", "Could not contact DNS", "errors resolving")
_NO_CONNECTION = ("connections to all backends failing", "failed to connect to all addresses")
_ENDED = ("Socket closed", "Connection reset", "Broken pipe")
"""What becomes of a connection in the clear that a server of TLS ends; which of them is a matter of timing."""


def unreachable(where: str, address: str, details: str) -> Unavailable:
    """The error for a call that reached nobody at `address` (`host:port`, or ""), by what gRPC says of it."""
    found = _mismatch(details, address)
    if found is None:
        return Unavailable(f"cannot reach {where}: {_brief(details)}")
    why, remedy = found
    return Unavailable(f"cannot talk to {where}: {why}.", remedy=remedy)


def _mismatch(details: str, address: str) -> tuple[str, str] | None:
    """What is wrong and what to do when there is a server, and it and we do not agree on gRPC or TLS."""
    place = address or "HOST:PORT"
    if "WRONG_VERSION_NUMBER" in details:
        return "it serves no TLS", f"Write the endpoint with grpc://, as in grpc://{place}."
    if details.startswith(_NO_CONNECTION) and any(ended in details for ended in _ENDED):
        return (
            "it ended the connection at once",
            f"If it serves TLS, write the endpoint with grpcs://, as in grpcs://{place}.",
        )
    if "http1.x server" in details:
        return "it does not speak gRPC", "Look whether the port is another one's: that of metrics, say."
    if "certificate has expired" in details:
        return "the TLS handshake failed, as its certificate has expired", "Renew the certificate."
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return (
            "the TLS handshake failed, as no known authority has signed its certificate",
            "Name the authority's PEM file: TIDEWIRE_CA_FILE, `ca_file`, or --ca-file of `tidewire context create`.",
        )
    if "Hostname Verification Check failed" in details:
        return (
            "the TLS handshake failed, as its certificate is not for this name",
            "Call it by a name that the certificate has, or add this one to the certificate.",
        )
    return None


def _brief(details: str) -> str:
    """The telling end of gRPC's nested connection messages: `… (111): Connection refused`."""
    for known in _BRIEF:
        if known in details:
            return known[0].lower() + known[1:]
    if any(known in details for known in _UNKNOWN_NAME):
        return "the host name is not known"
    if "handshake" in details.lower():
        return f"the TLS handshake failed ({details.rsplit(':', 1)[-1].strip() or 'no reason given'})"
    return details or "no reason given"
