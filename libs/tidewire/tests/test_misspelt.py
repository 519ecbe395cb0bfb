"""Settings that nobody reads are named before a command starts."""

import pytest

from tidewire_platform.misspelt import misspelt, warn_of_misspelt


def test_a_misspelt_setting_is_named_with_the_one_that_is_meant() -> None:
    given = {
        "TIDEWIRE_BAKEND": "distributed",
        "TIDEWIRE_REGISTY_PORT": "1",
        "TIDEWIRE_KAFKA_BROKERS": "k:9092",
        "TIDEWIRE_UP_HEALTHPORT": "1",
    }
    assert misspelt(given) == [
        "nothing reads TIDEWIRE_BAKEND; is TIDEWIRE_BACKEND meant?",
        "nothing reads TIDEWIRE_KAFKA_BROKERS",
        "nothing reads TIDEWIRE_REGISTY_PORT; is TIDEWIRE_REGISTRY_PORT meant?",
        "nothing reads TIDEWIRE_UP_HEALTHPORT; is TIDEWIRE_UP_HEALTH_PORT meant?",
    ]


def test_settings_of_clients_and_of_others_are_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    clients = ("ENDPOINT", "TOKEN", "TOKEN_FILE", "TENANT", "CONTEXT", "CA_FILE")
    given = dict.fromkeys([f"TIDEWIRE_{name}" for name in clients], "x")
    warn_of_misspelt({**given, "TIDEWIRE_DATA_DIR": "x", "TIDEWIRE_STORAGE_PORT": "1", "PATH": "/bin"})
    assert capsys.readouterr() == ("", "")
