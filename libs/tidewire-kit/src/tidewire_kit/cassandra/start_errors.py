"""What may be wrong at the first connection, in the words of whoever has to put it right. Used by `connecting`."""

import re
import socket
import ssl
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import cassandra
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ProtocolVersionUnsupported
from cassandra.protocol import ErrorMessage

from tidewire_kit.cassandra.errors import DEPENDENCY, configuration_error, translated
from tidewire_kit.cassandra.settings import CassandraSettings, variable
from tidewire_kit.errors import FailedPrecondition, TidewireError, Unavailable

OLDEST_VERSION = (5, 0)
_OLDEST = "5.0"
_TLS_WORDS = re.compile(r"\[SSL: (?P<name>\w+)\] (?P<why>[^(]*)")
_NO_KEYSPACE = re.compile(r"keyspace '?\"?\w+'?\"? does(?: not|n't) exist", re.IGNORECASE)


def start_error(
    error: BaseException,
    settings: CassandraSettings,
    keyspace: str | None,
    datacenters: list[str],
    keyspaces: Collection[str] = (),
) -> TidewireError:
    """Returns what to raise when the first connection failed. `datacenters`: those of the nodes found, if any were;
    `keyspaces`: those of the cluster, if it got so far."""
    if isinstance(error, TidewireError):
        return error
    found = _no_such_datacenter(settings, datacenters)
    if found is not None:
        return found
    if keyspace is not None and keyspaces and keyspace not in keyspaces:
        return _no_such_keyspace(keyspace)
    for cause in _causes(error):
        found = _known(cause, settings, keyspace) or configuration_error(cause)
        if found is not None:
            return found
    if isinstance(error, NoHostAvailable | cassandra.OperationTimedOut | OSError):
        tls = ""
        if settings.ca_file is not None and settings.cert_file is None:
            # Such a node ends the connection without a word of why.
            tls = f"; if it asks clients for a certificate, set {variable('cert_file')} and {variable('key_file')}"
        causes = [cause for cause in _causes(error) if not isinstance(cause, NoHostAvailable)]
        why = "; ".join(sorted({_words(cause) for cause in causes})) or "none is up"
        return Unavailable(
            DEPENDENCY,
            f"no node answers at {settings.contact_points} ({why}); correct {variable('contact_points')}, or see "
            f"whether Cassandra runs there and lets this machine in{tls}",
            reason="STORE_UNAVAILABLE",
            retry_delay_seconds=5.0,
        )
    return translated(error)


def check_version(versions: Iterable[str | None]) -> str:
    """Returns the lowest version of the nodes. Raises FailedPrecondition when it is below the oldest supported one.

    5.0 is the oldest with the indexes that lists of devices use (SAI). Conditional writes, on which names and commits
    rest, hold while nodes join and leave from 4.1 on (Paxos v2).
    """
    known = sorted((_version(text), text) for text in versions if text)
    if not known:
        return ""
    if known[0][0] < OLDEST_VERSION:
        raise FailedPrecondition(
            f"a node runs Cassandra {known[0][1]}; the tables need {_OLDEST} or newer: upgrade it, or "
            f"point {variable('contact_points')} at a newer cluster",
            reason="STORE_TOO_OLD",
        )
    return known[0][1]


def only_datacenter(found: list[str]) -> str:
    """Returns the cluster's only datacenter. Raises FailedPrecondition when there are several to choose from."""
    if len(found) != 1:
        raise FailedPrecondition(
            f"the cluster has the datacenters {', '.join(found) or '(none)'}; set {variable('datacenter')} to the one "
            "beside this process",
            reason="STORE_DATACENTER",
        )
    return found[0]


def read_password(settings: CassandraSettings) -> str:
    """Returns the password. Raises FailedPrecondition naming the setting when it cannot be read."""
    if settings.password_file is None:
        raise FailedPrecondition(
            f"{variable('username')} is set and {variable('password_file')} is not; name the file with its password",
            reason="STORE_AUTHENTICATION",
        )
    try:
        return settings.password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable("password_file", settings.password_file, error, "STORE_AUTHENTICATION") from None


def check_no_tls(settings: CassandraSettings) -> None:
    """Raises FailedPrecondition when TLS was meant but is not on."""
    for field in ("cert_file", "key_file", "tls_server_name"):
        if getattr(settings, field):
            raise FailedPrecondition(
                f"{variable(field)} is set and {variable('ca_file')} is not; name the authorities of the nodes' "
                "certificates, which turns TLS on",
                reason="STORE_TLS",
            )


def trusting(ca_file: Path) -> ssl.SSLContext:
    """Returns a TLS context that trusts these authorities and checks names."""
    try:
        return ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise _unreadable("ca_file", ca_file, error, "STORE_TLS") from None


def load_certificate(context: ssl.SSLContext, settings: CassandraSettings) -> None:
    """Adds the client's certificate."""
    assert settings.cert_file is not None
    if settings.key_file is None:
        raise FailedPrecondition(
            f"{variable('cert_file')} is set and {variable('key_file')} is not; name its private key",
            reason="STORE_TLS",
        )
    try:
        context.load_cert_chain(str(settings.cert_file), str(settings.key_file))
    except (OSError, ssl.SSLError) as error:
        raise _unreadable("cert_file", settings.cert_file, error, "STORE_TLS", also="key_file") from None


def _unreadable(
    field: str, path: Path, error: Exception, reason: str, *, also: str | None = None
) -> FailedPrecondition:
    why = getattr(error, "strerror", None) or type(error).__name__
    names = variable(field) + (f" and {variable(also)}" if also else "")
    return FailedPrecondition(
        f"{path} cannot be used ({why}); correct {names}", reason=reason, subject=str(path)
    )


def _no_such_datacenter(settings: CassandraSettings, datacenters: list[str]) -> FailedPrecondition | None:
    if not settings.datacenter or not datacenters or settings.datacenter in datacenters:
        return None
    return FailedPrecondition(
        f"the cluster has no datacenter {settings.datacenter!r} but {', '.join(datacenters)}; correct "
        f"{variable('datacenter')} (case matters)",
        reason="STORE_DATACENTER",
    )


def _known(
    cause: BaseException, settings: CassandraSettings, keyspace: str | None
) -> FailedPrecondition | None:
    if isinstance(cause, cassandra.UnresolvableContactPoints | socket.gaierror):
        return FailedPrecondition(
            f"none of {settings.contact_points} is known to the resolver; correct {variable('contact_points')}",
            reason="STORE_UNRESOLVABLE",
        )
    if isinstance(cause, ProtocolVersionUnsupported) or "protocol version" in str(cause).lower():
        return FailedPrecondition(
            f"the server at {settings.contact_points} does not speak Cassandra's protocol 5, so it is older than "
            f"{_OLDEST}; upgrade it, or correct {variable('contact_points')}",
            reason="STORE_TOO_OLD",
        )
    if isinstance(cause, OSError) and (found := _tls_error(cause, settings)) is not None:
        return found
    if keyspace is not None and _NO_KEYSPACE.search(str(cause)):
        return _no_such_keyspace(keyspace)
    return None


def _no_such_keyspace(keyspace: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"there is no keyspace {keyspace}; run `tidewire schema apply`, or correct {variable('keyspace')}",
        reason="STORE_KEYSPACE_MISSING",
        subject=keyspace,
    )


def _tls_error(cause: BaseException, settings: CassandraSettings) -> FailedPrecondition | None:
    """The driver raises what went wrong in TLS as an OSError of another kind and keeps the words only."""
    found = _TLS_WORDS.search(str(cause))
    if found is None:
        return None
    name, why = found["name"], found["why"].strip().rstrip(".")
    if name == "CERTIFICATE_VERIFY_FAILED":
        why = why.removeprefix("certificate verify failed: ")
        if "mismatch" in why.lower():
            remedy = f"set {variable('tls_server_name')} to a name that it carries"
        elif "expired" in why.lower():
            remedy = f"renew it, or name other nodes in {variable('contact_points')}"
        else:
            remedy = f"correct {variable('ca_file')}"
        return FailedPrecondition(
            f"the certificate of the node at {settings.contact_points} does not hold ({why}); {remedy}",
            reason="STORE_TLS",
        )
    if "ALERT" in name or "CERTIFICATE" in name:
        remedy = f"it asks for a certificate: correct {variable('cert_file')} and {variable('key_file')}"
    else:
        remedy = f"see whether {variable('contact_points')} names a port with TLS"
    return FailedPrecondition(
        f"TLS with {settings.contact_points} failed ({why}); {remedy}", reason="STORE_TLS"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error itself, then the nodes' and whatever those stand for."""
    yield error
    nested: Any = error.errors if isinstance(error, NoHostAvailable | cassandra.OperationTimedOut) else None
    for item in (nested.values() if isinstance(nested, dict) else nested) or ():
        if isinstance(item, BaseException):
            yield from _causes(item)
    for argument in error.args:
        if isinstance(argument, BaseException):
            yield from _causes(argument)
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.rpartition("Last error: ")[2]
    if isinstance(error, cassandra.OperationTimedOut):
        return "no answer in time"
    if isinstance(error, ErrorMessage):
        return str(error.summary)
    return type(error).__name__


def _version(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
