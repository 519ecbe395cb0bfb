"""The driver's errors as callers see them, made by hand: those that no healthy server raises."""

import socket

import cassandra
import pytest
from cassandra import ConsistencyLevel, protocol
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionException, ConnectionShutdown

from tidewire_kit.cassandra import CassandraSettings
from tidewire_kit.cassandra.errors import OUTCOME_UNKNOWN, not_begun, transient, translated
from tidewire_kit.cassandra.start_errors import check_version, only_datacenter, start_error
from tidewire_kit.errors import FailedPrecondition, TidewireError, Unavailable

UNAVAILABLE = cassandra.Unavailable(
    "no", consistency=ConsistencyLevel.LOCAL_QUORUM, required_replicas=2, alive_replicas=1
)
TRANSIENT = [
    UNAVAILABLE,
    cassandra.ReadTimeout("no", consistency=6, required_responses=2, received_responses=1),
    cassandra.WriteTimeout("no", consistency=6, required_responses=2, received_responses=1, write_type=1),
    cassandra.WriteFailure("no", consistency=6),
    cassandra.OperationTimedOut({"a": "Client request timeout"}, None),
    ConnectionShutdown("gone"),
    ConnectionException("gone"),
    NoHostAvailable("none", {}),
    NoHostAvailable("none", {"a": ConnectionRefusedError(), "b": UNAVAILABLE}),
    protocol.OverloadedErrorMessage(code=0x1001, message="busy", info=None),
    protocol.ErrorMessage(code=0x1700, message="CAS operation result is unknown", info=None),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
def test_what_passes_is_unavailable_with_a_delay(error: Exception) -> None:
    assert transient(error)
    found = translated(error)
    assert isinstance(found, Unavailable)
    assert found.reason == "STORE_UNAVAILABLE"
    assert found.retry_delay_seconds
    unknown = translated(error, outcome_unknown=True)
    assert unknown.reason == OUTCOME_UNKNOWN


def test_too_few_copies_are_counted() -> None:
    assert "1 of the 2 copies" in translated(UNAVAILABLE).message


def test_a_statement_that_is_refused_is_a_fault_of_ours() -> None:
    error = cassandra.InvalidRequest("Undefined column")
    assert not transient(error)
    assert type(translated(error)) is TidewireError


def test_missing_permission_is_for_the_administrator() -> None:
    error = cassandra.Unauthorized("User x has no MODIFY permission on <table a>")
    found = translated(error)
    assert isinstance(found, FailedPrecondition)
    assert "TIDEWIRE_CASSANDRA_USERNAME" in found.message


def test_an_error_of_ours_stays_what_it_is() -> None:
    error = Unavailable("cassandra", "why")
    assert translated(error) is error


def test_what_was_never_sent_was_not_begun() -> None:
    assert not_begun(NoHostAvailable("none", {}), attempted=False)
    assert not not_begun(ConnectionShutdown("gone"), attempted=True)
    assert not_begun(protocol.OverloadedErrorMessage(code=0x1001, message="", info=None), attempted=True)


def _start(error: Exception, **settings: str) -> TidewireError:
    return start_error(error, CassandraSettings(**settings), "tidewire", [])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "reason", "named"),
    [
        (cassandra.UnresolvableContactPoints({}), "STORE_UNRESOLVABLE", "CONTACT_POINTS"),
        (socket.gaierror(-2, "Name or service not known"), "STORE_UNRESOLVABLE", "CONTACT_POINTS"),
        (
            NoHostAvailable("", {"a": cassandra.AuthenticationFailed("bad credentials")}),
            "STORE_AUTHENTICATION",
            "PASSWORD_FILE",
        ),
        (
            NoHostAvailable("", {"a": OSError(1, "Last error: [SSL: TLSV13_ALERT_X] alert (_ssl.c:1)")}),
            "STORE_TLS",
            "CERT_FILE",
        ),
        (cassandra.DriverException("Cannot downgrade: protocol version"), "STORE_TOO_OLD", "CONTACT_POINTS"),
        (
            cassandra.InvalidRequest("Keyspace 'tidewire' does not exist"),
            "STORE_KEYSPACE_MISSING",
            "KEYSPACE",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_at_the_start_names_the_setting(error: Exception, reason: str, named: str) -> None:
    found = _start(error)
    assert isinstance(found, FailedPrecondition)
    assert found.reason == reason
    assert f"TIDEWIRE_CASSANDRA_{named}" in found.message


def test_a_node_that_refuses_is_unavailable_and_named() -> None:
    found = _start(NoHostAvailable("", {"a": ConnectionRefusedError(111, "Connection refused")}))
    assert isinstance(found, Unavailable)
    assert "Connection refused" in found.message
    assert "127.0.0.1:9042" in found.message


def test_a_wrong_datacenter_names_those_there_are() -> None:
    settings = CassandraSettings(datacenter="here")
    found = start_error(NoHostAvailable("", {}), settings, "tidewire", ["east", "west"])
    assert found.reason == "STORE_DATACENTER"
    assert "east, west" in found.message
    with pytest.raises(FailedPrecondition, match="TIDEWIRE_CASSANDRA_DATACENTER"):
        only_datacenter(["east", "west"])
    assert only_datacenter(["east"]) == "east"


def test_the_oldest_node_decides() -> None:
    assert check_version(["5.0.3", "5.0.2", None]) == "5.0.2"
    with pytest.raises(FailedPrecondition, match=r"runs Cassandra 4\.1\.11"):
        check_version(["5.0.3", "4.1.11"])
    with pytest.raises(FailedPrecondition, match=r"3\.11"):
        check_version(["3.11.19"])
