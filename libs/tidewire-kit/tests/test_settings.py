"""Settings: what is read, what is refused and how, and that the reference can be generated."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from tidewire_kit.errors import InvalidArgument
from tidewire_kit.settings import CommonSettings, describe, load, setting, unknown_variables


@dataclass(frozen=True, slots=True)
class ToySettings:
    PREFIX: ClassVar[str] = "TIDEWIRE_TOY_"

    name: str
    """Name; no default."""

    port: int = setting(7000, minimum=0, maximum=65535)
    """Port."""

    ratio: float = 0.5
    """Ratio."""

    on: bool = False
    """Switch."""

    place: Path | None = None
    """Place."""

    form: Literal["a", "b"] = "a"
    """Form."""

    api_token: int = 0
    """A secret that should be a number."""


def test_values_of_every_type() -> None:
    environ = {
        "TIDEWIRE_TOY_NAME": "x",
        "TIDEWIRE_TOY_PORT": "0",
        "TIDEWIRE_TOY_RATIO": "1e-3",
        "TIDEWIRE_TOY_ON": "Yes",
        "TIDEWIRE_TOY_PLACE": "/tmp/x",
        "TIDEWIRE_TOY_FORM": "b",
        "UNRELATED": "1",
    }
    assert load(ToySettings, environ) == ToySettings("x", 0, 0.001, True, Path("/tmp/x"), "b")


def test_an_empty_variable_means_the_default() -> None:
    assert load(ToySettings, {"TIDEWIRE_TOY_NAME": "x", "TIDEWIRE_TOY_PORT": ""}).port == 7000


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("NAME", "", "is not set"),
        ("PORT", "70x", "'70x' is not an integer"),
        ("PORT", "70000", "the most is 65535"),
        ("PORT", "-1", "the least is 0"),
        ("RATIO", "nan", "finite"),
        ("RATIO", "lots", "is not a number"),
        ("ON", "maybe", "true or false"),
        ("FORM", "c", "a | b"),
    ],
)
def test_a_bad_value_names_variable_and_remedy(variable: str, value: str, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(ToySettings, {"TIDEWIRE_TOY_NAME": "x", f"TIDEWIRE_TOY_{variable}": value})
    assert caught.value.field == f"TIDEWIRE_TOY_{variable}"
    assert says in caught.value.message


def test_a_secret_is_not_shown() -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(ToySettings, {"TIDEWIRE_TOY_NAME": "x", "TIDEWIRE_TOY_API_TOKEN": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_common_settings_have_defaults_and_documentation() -> None:
    settings = load(CommonSettings, {"HOME": "/home/ada"})
    assert settings.data_dir == Path("/home/ada/.local/share/tidewire")
    assert load(CommonSettings, {"XDG_DATA_HOME": "/data"}).data_dir == Path("/data/tidewire")
    rows = {row.variable: row for row in describe(CommonSettings)}
    assert rows["TIDEWIRE_DATA_DIR"].default == "$XDG_DATA_HOME/tidewire"
    assert rows["TIDEWIRE_INSECURE"].default == "false"
    assert all(row.doc.endswith(".") for row in rows.values())


def test_a_field_without_documentation_is_a_mistake() -> None:
    @dataclass(frozen=True)
    class Bare:
        PREFIX: ClassVar[str] = "X_"
        a: int = 1

    with pytest.raises(TypeError, match=r"Bare\.a "):
        describe(Bare)


def test_a_misspelt_variable_is_found_with_its_nearest() -> None:
    environ = {
        "TIDEWIRE_TOY_PROT": "1",
        "TIDEWIRE_DATADIR": "/x",
        "TIDEWIRE_STORAGE_PORT": "1",
        "TIDEWIRE_HOST": "a",
    }
    found = unknown_variables(environ, (CommonSettings, ToySettings))
    assert found == {"TIDEWIRE_TOY_PROT": "TIDEWIRE_TOY_PORT", "TIDEWIRE_DATADIR": "TIDEWIRE_DATA_DIR"}
