"""Structured logs: one event per line, as JSON or, at a terminal, as text.

`configure` is called once by `tidewire_kit.service.run`; everybody else calls `get_logger(__name__)` and logs the name
of an event with key-values. Tenant and trace id are bound at the edge. Payloads are never logged; values whose names
say that they are secret are replaced.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

# The console output of structlog imports rich where it is installed, a sixth of a service's time to start; with None
# in its place structlog does without it, and whoever wants rich later still gets it.
_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment]
try:
    import structlog
finally:
    if _rich is None:
        del sys.modules["rich"]
    else:
        sys.modules["rich"] = _rich

_SECRET_NAMES = ("authorization", "token", "secret", "password", "private_key", "signing_key")
_HIDDEN = "[hidden]"
_FIRST = ("time", "level", "service", "event")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Returns the logger of a module; cheap, and valid before `configure`."""
    return structlog.stdlib.get_logger(name)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hides values whose names say that they are secret. Public for tests."""
    for name in event:
        if name != "event" and any(secret in name.lower() for secret in _SECRET_NAMES):
            event[name] = _HIDDEN
    return event


def _in_order(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What one looks for first comes first."""
    return {**{name: event[name] for name in _FIRST if name in event}, **event}


def configure(service: str, *, level: str = "info", form: str = "json", stream: TextIO | None = None) -> None:
    """Sets up logging for the process: level `debug|info|warning|error`, form `json|console`, stream default stderr."""

    def add_service(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        add_service,
        redact,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    last: list[structlog.typing.Processor]
    if form == "json":
        last = [
            structlog.processors.format_exc_info,
            _in_order,
            structlog.processors.JSONRenderer(default=str),
        ]
    else:
        last = [structlog.dev.ConsoleRenderer(colors=(stream or sys.stderr).isatty())]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
