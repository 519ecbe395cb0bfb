"""Settings: frozen dataclasses read once from the environment by a process's composition root.

A settings class has a `PREFIX` and, under each field, a docstring with its unit, range, default and the default's
reason. The variable of a field is PREFIX + the field's name in capitals. `load` reads them, `describe` makes the rows
of docs/reference/settings.md out of the docstrings. A bad value is `InvalidArgument` naming variable and remedy.
"""

import ast
import dataclasses
import difflib
import inspect
import math
import os
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from tidewire_kit.errors import InvalidArgument

_DATA_DIR_DOC = Path("$XDG_DATA_HOME/tidewire")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "KEY")


class SettingsClass(Protocol):
    """A frozen dataclass with a PREFIX. What no dataclass is fails in `dataclasses.fields`."""

    PREFIX: ClassVar[str]


def setting[T](
    default: T,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    derive: Callable[[Mapping[str, str]], T] | None = None,
) -> T:
    """A field's default with the range of its value (both ends included), checked by `load`.

    `derive` makes the default from the environment instead; `default` then only says so in the documentation.
    """
    metadata = {"minimum": minimum, "maximum": maximum, "derive": derive, "shown": default}
    if derive is not None:
        return dataclasses.field(default_factory=lambda: derive(os.environ), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def load[S: SettingsClass](cls: type[S], environ: Mapping[str, str]) -> S:
    """Returns `cls` filled from `environ`; an absent or empty variable means the default.

    Raises InvalidArgument for the first variable (in order of the fields) that has no default or a bad value.
    """
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for field in _fields(cls):
        variable = variable_of(cls, field.name)
        text = environ.get(variable, "")
        if text:
            values[field.name] = _checked(variable, _parse(hints[field.name], variable, text), field.metadata)
        elif field.metadata.get("derive") is not None:
            values[field.name] = field.metadata["derive"](environ)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InvalidArgument(variable, f"is not set; it must be {_kind(hints[field.name])}")
    return cls(**values)


def variable_of(cls: type[SettingsClass], field_name: str) -> str:
    """Returns the environment variable of a field."""
    return cls.PREFIX + field_name.upper()


def unknown_variables(environ: Mapping[str, str], classes: Iterable[type[SettingsClass]]) -> dict[str, str]:
    """Returns variables under the classes' prefixes that no field reads → the nearest one that is read ("" if none).

    For a warning at the start: a misspelt variable is otherwise silently the default. A prefix that extends another
    (TIDEWIRE_INGESTION_ and TIDEWIRE_) is only judged by its own class; other services' prefixes are not known here, so
    of plain TIDEWIRE_ only near misses are returned.
    """
    classes = list(classes)
    known = [variable_of(cls, field.name) for cls in classes for field in _fields(cls)]
    shortest = min(cls.PREFIX for cls in classes)
    found: dict[str, str] = {}
    for variable in environ:
        if variable in known or not variable.startswith(shortest):
            continue
        near = difflib.get_close_matches(variable, known, n=1, cutoff=0.9)
        owned = any(shortest != cls.PREFIX and variable.startswith(cls.PREFIX) for cls in classes)
        if near or owned:
            found[variable] = near[0] if near else ""
    return found


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One line of the settings' reference."""

    variable: str
    type: str
    default: str
    """As it would be written in the environment; "" when unset."""
    doc: str


def describe(cls: type[SettingsClass]) -> list[SettingRow]:
    """Returns a row per field, in order. Raises TypeError for a field without a docstring: it must have one."""
    docs = _field_docs(cls)
    hints = typing.get_type_hints(cls)
    rows = []
    for field in _fields(cls):
        if field.name not in docs:
            raise TypeError(f"{cls.__qualname__}.{field.name} has no docstring under it")
        default = field.metadata.get("shown", field.default)
        if default is None or default is dataclasses.MISSING:
            shown = ""
        else:
            shown = str(default).lower() if isinstance(default, bool) else str(default)
        rows.append(
            SettingRow(variable_of(cls, field.name), _kind(hints[field.name]), shown, docs[field.name])
        )
    return rows


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Returns $XDG_DATA_HOME/tidewire, or ~/.local/share/tidewire."""
    base = environ.get("XDG_DATA_HOME", "")
    root = Path(base) if base else Path(environ.get("HOME", "") or Path.home()) / ".local" / "share"
    return root / "tidewire"


@dataclass(frozen=True, slots=True)
class CommonSettings:
    """What every service reads."""

    PREFIX: ClassVar[str] = "TIDEWIRE_"

    data_dir: Path = setting(_DATA_DIR_DOC, derive=default_data_dir)
    """Directory of all data of the embedded backend; created when missing. One platform per directory."""

    backend: Literal["embedded", "distributed"] = "embedded"
    """Where records and state are kept. `embedded`: files and SQLite in the data directory, on one machine.
    `distributed`: Kafka (`TIDEWIRE_KAFKA_*`) and Cassandra (`TIDEWIRE_CASSANDRA_*`), for processes on many."""

    host: str = "127.0.0.1"
    """Address that the gRPC and metrics listeners bind. Another than loopback needs TLS or `TIDEWIRE_INSECURE`."""

    advertise_host: str | None = None
    """Host by which others reach this process, as shown to clients. Unset: `TIDEWIRE_HOST`, or this machine's name
    where that means every address."""

    insecure: bool = False
    """Allows a listener without TLS that is not on loopback: tokens then cross the network in the clear."""

    tls_cert_file: Path | None = None
    """Certificate chain of the gRPC listener, PEM; read again when it changes. Unset: no TLS."""

    tls_key_file: Path | None = None
    """Private key of the certificate, PEM; read again when it changes."""

    tls_client_ca_file: Path | None = None
    """Certificate authorities of clients, PEM. Set: every client must show a certificate of theirs."""

    tls_ca_file: Path | None = None
    """Certificate authorities that services trust when they call one another, PEM. Unset: the system's."""

    signing_key_file: Path | None = None
    """The platform's ES256 signing key, PEM; only the registry reads it. Unset: one made in the data directory, or, on
    the distributed backend, refused: all registry processes need the same."""

    service_token_file: Path | None = None
    """Token by which services call one another; read again when it changes. Unset: the data directory's, or, on the
    distributed backend, refused."""

    endpoint: str = ""
    """Address of the registry, `host:port`, where neither data directory nor the members of the log say it. Unset:
    nobody is asked then; a registry of somebody else may listen where ours would."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level of log lines."""

    log_format: Literal["json", "console"] = "json"
    """Form of log lines: one JSON object each, or text for people at a terminal."""

    reflection: bool = False
    """Serves gRPC reflection, which shows the API's shape to anybody who connects. Off: least said to strangers."""

    max_connection_age_seconds: float = setting(300.0, minimum=1, maximum=86400)
    """Age at which the server ends a connection, ± 20 %, so that new processes get their share; streams of telemetry
    move on at an age a little above it, with every acknowledgement. Default 5 minutes."""

    drain_seconds: float = setting(20.0, minimum=0.1, maximum=600)
    """Longest time that a stopping process takes for what it has accepted. Below Kubernetes' 30 s before SIGKILL."""

    partitions: int = setting(4, minimum=1, maximum=1024)
    """Partitions of the telemetry topic of the embedded log, fixed when it is created: another number is refused after
    that. Default 4: so many storage processes can share the work of one machine, and records stay large (ADR 8). On
    Kafka: `TIDEWIRE_KAFKA_PARTITIONS`."""

    log_cap_bytes: int = setting(0, minimum=0)
    """Most bytes of the embedded log. 0: the smaller of 20 % of the disk and 20 GiB."""


def _fields(cls: type[SettingsClass]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)  # type: ignore[arg-type]  # as SettingsClass says


def _parse(hint: Any, variable: str, text: str) -> Any:
    hint, _ = _without_none(hint)
    if typing.get_origin(hint) is Literal:
        if text not in typing.get_args(hint):
            raise InvalidArgument(variable, f"{_shown(variable, text)} is none of {_kind(hint)}")
        return text
    if hint is str:
        return text
    if hint is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise InvalidArgument(
                variable, f"{_shown(variable, text)} is not true or false; set it to one of these"
            )
        return text.lower() in _TRUE
    if hint is Path:
        return Path(text).expanduser()
    if hint is int or hint is float:
        try:
            value = hint(text)
        except ValueError:
            raise InvalidArgument(
                variable, f"{_shown(variable, text)} is not {_kind(hint)}; set one"
            ) from None
        if not math.isfinite(value):
            raise InvalidArgument(variable, "is not a finite number; set one")
        return value
    raise TypeError(f"{variable}: settings of type {hint} are not supported")


def _checked(variable: str, value: Any, metadata: Mapping[str, Any]) -> Any:
    minimum, maximum = metadata.get("minimum"), metadata.get("maximum")
    if minimum is not None and value < minimum:
        raise InvalidArgument(variable, f"{value} is too small; the least is {minimum}")
    if maximum is not None and value > maximum:
        raise InvalidArgument(variable, f"{value} is too large; the most is {maximum}")
    return value


def _shown(variable: str, text: str) -> str:
    """The value as an error may show it: not at all where it may be a secret."""
    if any(word in variable for word in _SECRET_WORDS):
        return "the value (not shown)"
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _kind(hint: Any) -> str:
    hint, optional = _without_none(hint)
    if typing.get_origin(hint) is Literal:
        text = " | ".join(str(choice) for choice in typing.get_args(hint))
    else:
        text = {str: "text", int: "an integer", float: "a number", bool: "true or false", Path: "a path"}.get(
            hint, str(hint)
        )
    return f"{text}, optional" if optional else text


def _without_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        if len(rest) == 1:
            return rest[0], True
    return hint, False


def _field_docs(cls: type[SettingsClass]) -> dict[str, str]:
    """The string literals that follow annotated assignments, which Python itself does not keep."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(definition, ast.ClassDef)
    docs: dict[str, str] = {}
    for node, following in zip(definition.body, definition.body[1:], strict=False):
        match node, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = inspect.cleandoc(text)
    return docs
