import pytest

from tidewire_kit.cassandra import CassandraSettings
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.settings import describe, load


def test_an_empty_environment_is_enough() -> None:
    settings = load(CassandraSettings, {})
    assert settings.addresses() == [("127.0.0.1", 9042)]
    assert settings.checked_keyspace() == "tidewire"
    assert settings.replication_factor == 3
    assert not settings.auto_schema


def test_every_setting_is_described() -> None:
    assert {row.variable for row in describe(CassandraSettings)} >= {"TIDEWIRE_CASSANDRA_CONTACT_POINTS"}


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("a:1, b:2", [("a", 1), ("b", 2)]),
        ("cassandra.example.com", [("cassandra.example.com", 9042)]),
        ("[::1]:7,[fe80::1]", [("::1", 7), ("fe80::1", 9042)]),
    ],
)
def test_contact_points(text: str, addresses: list[tuple[str, int]]) -> None:
    assert CassandraSettings(contact_points=text).addresses() == addresses


@pytest.mark.parametrize("text", ["", "a:", "a:0", "a:70000", "a b", ",a", "::1", "a:1:2"])
def test_a_bad_contact_point_names_the_setting(text: str) -> None:
    with pytest.raises(InvalidArgument, match="TIDEWIRE_CASSANDRA_CONTACT_POINTS"):
        CassandraSettings(contact_points=text).addresses()


@pytest.mark.parametrize("name", ["", "A", "1a", "a-b", "a" * 49, 'a"; DROP KEYSPACE b'])
def test_a_bad_keyspace_names_the_setting(name: str) -> None:
    with pytest.raises(InvalidArgument, match="TIDEWIRE_CASSANDRA_KEYSPACE"):
        CassandraSettings(keyspace=name).checked_keyspace()
