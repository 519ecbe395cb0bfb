"""SDK of Tidewire: administration, devices, queries.

    from datetime import timedelta, datetime, UTC
    from tidewire_client import AdminClient, Connection, QueryClient, TelemetryPublisher

    with Connection("127.0.0.1:7001", token=TOKEN, tenant="demo") as connection:
        AdminClient(connection).create_device("sensor-1")
        with TelemetryPublisher(connection) as publisher:
            publisher.add("sensor-1", None, {"temperature": 21.5})
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        print(QueryClient(connection).read_series("sensor-1", start=hour_ago)["temperature"])

Each class has an asynchronous twin with the prefix `Async`. A device with its own key uses `DevicePublisher`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidewire_client.admin import AsyncAdminClient, new_device
    from tidewire_client.answers import Aggregate, Latest, Series, SeriesColumns
    from tidewire_client.blocking import (
        AdminClient,
        Connection,
        DevicePublisher,
        EventClient,
        QueryClient,
        TelemetryPublisher,
    )
    from tidewire_client.connect import AsyncConnection
    from tidewire_client.errors import (
        AlreadyExists,
        BufferFull,
        Conflict,
        DeadlineExceeded,
        FailedPrecondition,
        InternalError,
        InvalidArgument,
        NotFound,
        PermissionDenied,
        PublisherClosed,
        ResourceExhausted,
        TidewireError,
        Unauthenticated,
        Unavailable,
    )
    from tidewire_client.events import AsyncEventClient, Event, EventRefusal, EventResult
    from tidewire_client.health import Health, check_all
    from tidewire_client.keys import generate_private_key, load_private_key, public_key_pem, save_private_key
    from tidewire_client.publisher import AsyncDevicePublisher, AsyncTelemetryPublisher
    from tidewire_client.query import AsyncQueryClient
    from tidewire_client.report import Report
    from tidewire_client.results import BatchResult, Refusal, Totals
    from tidewire_client.tokens import DeviceKey, FileToken, StaticToken, TokenSource

__all__ = [
    "AdminClient",
    "Aggregate",
    "AlreadyExists",
    "AsyncAdminClient",
    "AsyncConnection",
    "AsyncDevicePublisher",
    "AsyncEventClient",
    "AsyncQueryClient",
    "AsyncTelemetryPublisher",
    "BatchResult",
    "BufferFull",
    "Conflict",
    "Connection",
    "DeadlineExceeded",
    "DeviceKey",
    "DevicePublisher",
    "Event",
    "EventClient",
    "EventRefusal",
    "EventResult",
    "FailedPrecondition",
    "FileToken",
    "Health",
    "InternalError",
    "InvalidArgument",
    "Latest",
    "NotFound",
    "PermissionDenied",
    "PublisherClosed",
    "QueryClient",
    "Refusal",
    "Report",
    "ResourceExhausted",
    "Series",
    "SeriesColumns",
    "StaticToken",
    "TelemetryPublisher",
    "TidewireError",
    "TokenSource",
    "Totals",
    "Unauthenticated",
    "Unavailable",
    "check_all",
    "generate_private_key",
    "load_private_key",
    "new_device",
    "public_key_pem",
    "save_private_key",
]

# Loaded when first used: a command that lists devices needs neither NumPy nor cryptography.
_HOMES = {
    "admin": (
        "AsyncAdminClient",
        "new_device",
    ),
    "answers": (
        "Aggregate",
        "Latest",
        "Series",
        "SeriesColumns",
    ),
    "blocking": (
        "AdminClient",
        "Connection",
        "DevicePublisher",
        "EventClient",
        "QueryClient",
        "TelemetryPublisher",
    ),
    "connect": ("AsyncConnection",),
    "errors": (
        "AlreadyExists",
        "BufferFull",
        "Conflict",
        "DeadlineExceeded",
        "FailedPrecondition",
        "InternalError",
        "InvalidArgument",
        "NotFound",
        "PermissionDenied",
        "PublisherClosed",
        "ResourceExhausted",
        "TidewireError",
        "Unauthenticated",
        "Unavailable",
    ),
    "events": (
        "AsyncEventClient",
        "Event",
        "EventRefusal",
        "EventResult",
    ),
    "health": (
        "Health",
        "check_all",
    ),
    "keys": (
        "generate_private_key",
        "load_private_key",
        "public_key_pem",
        "save_private_key",
    ),
    "publisher": (
        "AsyncDevicePublisher",
        "AsyncTelemetryPublisher",
    ),
    "query": ("AsyncQueryClient",),
    "report": ("Report",),
    "results": (
        "BatchResult",
        "Refusal",
        "Totals",
    ),
    "tokens": (
        "DeviceKey",
        "FileToken",
        "StaticToken",
        "TokenSource",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Imports a public name from the module that has it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
