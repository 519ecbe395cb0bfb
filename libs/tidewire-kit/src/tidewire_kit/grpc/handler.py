"""Wraps a servicer for the wire, once per method and at the start: identity, access, errors, metrics, deadline.

There are no interceptors: they cost more on each call than everything here. A service's main calls `service_handler`
with its generated descriptor, its servicer, its access table and the process's `Guard`, and gives the result to
`Server.add`. A servicer's methods are

    unary answer      async def GetTenant(self, request, call) -> response
    streamed answer   async def ReadSeries(self, request, call): yield response
    both streamed     async def StreamTelemetry(self, requests, call): async for request in requests: ... yield response

A streamed answer may also be written with `await call.context.write(response)` from a plain coroutine; it then writes
bytes. Requests and responses of methods named in `raw` are bytes on both sides.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from time import perf_counter
from typing import Any, Final

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status
from grpc import aio

from tidewire_kit.errors import (
    DeadlineExceeded,
    InvalidArgument,
    PermissionDenied,
    TidewireError,
    Unauthenticated,
    Unavailable,
)
from tidewire_kit.grpc.call import Call, trace_id_of
from tidewire_kit.grpc.guard import STREAM_AGE_KEY, DrainableRequests, Guard
from tidewire_kit.grpc.limits import MAX_MESSAGE_BYTES, MessageTooLarge
from tidewire_kit.grpc.status import DETAILS_KEY, internal_status, status_code, to_status
from tidewire_kit.identity.caller import Caller, Role
from tidewire_kit.observability.logs import get_logger
from tidewire_kit.observability.metrics import MethodMetrics
from tidewire_kit.observability.traces import Handler, traced

LEAST_SECONDS: Final = 0.005
"""Calls with less time than this left are refused: nobody would be there for the answer."""

Access = Mapping[str, frozenset[Role]]
"""RPC → roles that may call it. Every RPC of a service is in its table; an empty set means nobody."""

Context = aio.ServicerContext[Any, Any]

logger = get_logger(__name__)


def service_handler(
    descriptor: ServiceDescriptor,
    servicer: object,
    access: Access,
    guard: Guard,
    raw: Collection[str] = (),
) -> grpc.GenericRpcHandler:
    """Returns the handler of a service. Raises TypeError when table, servicer and descriptor do not agree:
    an RPC that is in no table would otherwise be open or dead, depending on who reads the code."""
    names = {method.name for method in descriptor.methods}
    if missing := sorted(names - access.keys()):
        raise TypeError(
            f"{descriptor.full_name}: RPCs without an entry in the access table: {', '.join(missing)}"
        )
    if unknown := sorted((access.keys() | set(raw)) - names):
        raise TypeError(f"{descriptor.full_name} has no RPCs {', '.join(unknown)}")
    if dead := sorted(name for name in names if not callable(getattr(servicer, name, None))):
        raise TypeError(
            f"{type(servicer).__name__} lacks the RPCs {', '.join(dead)} of {descriptor.full_name}"
        )
    handlers = {
        method.name: _method_handler(
            method, getattr(servicer, method.name), access, guard, method.name in raw
        )
        for method in descriptor.methods
    }
    return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)


def _method_handler(
    method: MethodDescriptor, implementation: Callable[..., Any], access: Access, guard: Guard, raw: bool
) -> "grpc.RpcMethodHandler[Any, Any]":
    parse = _identity if raw else _parser(method)
    render = _identity if raw else _serialize
    door = _Door(method, access[method.name], guard)
    # Parsing and serialising happen in the wrapper, for only there can an unreadable message get a proper error.
    handle: Handler
    service = method.containing_service.full_name
    match method.client_streaming, method.server_streaming:
        case False, False:
            handle = traced(service, method.name, _unary(door, implementation, parse, render))
            return grpc.unary_unary_rpc_method_handler(handle)
        case False, True:
            handle = traced(service, method.name, _streamed(door, implementation, parse, render, False))
            return grpc.unary_stream_rpc_method_handler(handle)
        case True, True:
            handle = traced(service, method.name, _streamed(door, implementation, parse, render, True))
            return grpc.stream_stream_rpc_method_handler(handle)
    raise TypeError(
        f"{method.full_name}: client streaming with a unary answer is not supported; stream the answer"
    )


_OK = grpc.StatusCode.OK.name
_PERHAPS_NEWS = frozenset({"TENANT_UNKNOWN", "TOKEN_UNKNOWN_KEY"})
_NEWS_PAUSES = (0.01, 0.04, 0.1, 0.25)


class _Door:
    """Everything about one RPC that does not change from call to call."""

    __slots__ = ("guard", "metrics", "name", "roles", "verifier")

    def __init__(self, method: MethodDescriptor, roles: frozenset[Role], guard: Guard) -> None:
        self.name = method.name
        self.roles = roles
        self.guard = guard
        self.verifier = guard.verifier
        self.metrics: MethodMetrics = guard.metrics.method(method.containing_service.full_name, method.name)

    async def enter_late(self, context: Context, error: Unauthenticated) -> Caller:
        """`enter`, once more and again for a moment when the token speaks of something that is not known here.

        What the registry has just answered for reaches this process milliseconds later, and whoever created a tenant or
        a credential may use it at once. `error` is what the first `enter` raised.
        """
        for pause in _NEWS_PAUSES:
            if error.reason not in _PERHAPS_NEWS:
                break
            await asyncio.sleep(pause)
            try:
                return self.enter(context)
            except Unauthenticated as again:
                error = again
        raise error

    def enter(self, context: Context) -> Caller:
        """Who calls, if they may; raises Unavailable, DeadlineExceeded, Unauthenticated, PermissionDenied."""
        if self.guard.draining:
            raise stopping()
        remaining: float | None = context.time_remaining()  # the stub forgets None
        if remaining is not None and remaining < LEAST_SECONDS:
            raise DeadlineExceeded(f"less than {LEAST_SECONDS * 1000:g} ms are left; allow more time")
        authorization = ""
        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                authorization = value  # type: ignore[assignment]  # text: only -bin keys carry bytes
                break
        caller = self.verifier.verify_authorization(authorization)
        if caller.roles.isdisjoint(self.roles):
            allowed = ", ".join(sorted(self.roles)) or "nobody"
            raise PermissionDenied(
                f"{self.name} is for {allowed}; use a token with such a role", reason="ROLE"
            )
        return caller

    async def fail(self, error: Exception, context: Context, caller: Caller | None) -> None:
        """Ends the call with the error's status. Always raises: AbortError, which the library expects."""
        status: Status
        if isinstance(error, TidewireError) and error.grpc_code != "INTERNAL":
            status = to_status(error)
        else:
            trace_id = trace_id_of(context)
            status = internal_status(trace_id)
            tenant = caller.tenant_id if caller is not None else ""
            logger.error("rpc_failed", method=self.name, tenant=tenant, trace_id=trace_id, exc_info=error)
        code = status_code(status)
        self.metrics.ended(code.name)
        await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))


def _unary(
    door: _Door, implementation: Callable[..., Awaitable[Any]], parse: Callable[[bytes], Any], render: Any
) -> Callable[[bytes, Context], Awaitable[bytes]]:
    metrics, verifier, name, guard = door.metrics, door.verifier, door.name, door.guard

    async def handle(request: bytes, context: Context) -> bytes:
        started = perf_counter()
        caller: Caller | None = None
        guard.in_flight += 1
        try:
            try:
                caller = door.enter(context)
            except Unauthenticated as error:
                caller = await door.enter_late(context, error)
            if len(request) > MAX_MESSAGE_BYTES:
                raise MessageTooLarge(len(request))
            answer: bytes = render(
                await implementation(parse(request), Call(caller, name, context, verifier))
            )
        except asyncio.CancelledError:
            metrics.ended("CANCELLED")
            raise
        except aio.AbortError:
            metrics.ended("ABORTED_BY_SERVICER")
            raise
        except Exception as error:
            await door.fail(error, context, caller)
            raise AssertionError("abort returned") from error
        else:
            metrics.ended(_OK)
            return answer
        finally:
            guard.in_flight -= 1
            metrics.took(perf_counter() - started)

    return handle


def _streamed(
    door: _Door,
    implementation: Callable[..., Any],
    parse: Callable[[bytes], Any],
    render: Callable[[Any], bytes],
    client_streams: bool,
) -> Callable[[Any, Context], Awaitable[None]]:
    metrics, verifier, name, guard = door.metrics, door.verifier, door.name, door.guard
    yields = inspect.isasyncgenfunction(implementation)

    async def handle(request: Any, context: Context) -> None:
        started = perf_counter()
        caller: Caller | None = None
        guard.in_flight += 1
        metrics.in_flight.inc()
        stream = DrainableRequests(request) if client_streams else None
        timer: asyncio.TimerHandle | None = None
        try:
            try:
                caller = door.enter(context)
            except Unauthenticated as error:
                caller = await door.enter_late(context, error)
            call = Call(caller, name, context, verifier)
            if stream is not None:
                guard.streams.add(stream)
                aged = guard.limit_age(stream)
                if aged is not None:
                    age, timer = aged
                    await context.send_initial_metadata(((STREAM_AGE_KEY, f"{age:.3f}"),))
                incoming = _incoming(stream, parse)
            else:
                incoming = parse(_bounded(request))
            if yields:
                async for response in implementation(incoming, call):
                    verifier.check(caller)  # a long answer ends when its token does
                    await context.write(render(response))
            else:
                await implementation(incoming, call)
            if stream is not None and stream.stopped:
                raise stopping()
        except asyncio.CancelledError:
            metrics.ended("CANCELLED")
            raise
        except aio.AbortError:
            metrics.ended("ABORTED_BY_SERVICER")
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
            await door.fail(error, context, caller)
        else:
            metrics.ended(_OK)
        finally:
            if stream is not None:
                guard.streams.discard(stream)
            if timer is not None:
                timer.cancel()
            guard.in_flight -= 1
            metrics.in_flight.dec()
            metrics.took(perf_counter() - started)

    return handle


async def _incoming(requests: AsyncIterator[bytes], parse: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield parse(_bounded(request))


def stopping() -> Unavailable:
    """Returns what a call gets that a stopping process does not take, or a stream that it ends."""
    return Unavailable(
        "server", "is stopping; connect again and repeat", reason="DRAINING", retry_delay_seconds=0.5
    )


def _bounded(request: bytes) -> bytes:
    if len(request) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(len(request))
    return request


def _parser(method: MethodDescriptor) -> Callable[[bytes], Message]:
    from_string = GetMessageClass(method.input_type).FromString
    name = method.input_type.full_name

    def parse(data: bytes) -> Message:
        try:
            return from_string(data)
        except DecodeError:
            raise InvalidArgument(
                "request", f"is not a readable {name}", reason="MALFORMED_MESSAGE"
            ) from None

    return parse


def _identity(data: Any) -> Any:
    return data


def _serialize(response: Message) -> bytes:
    return response.SerializeToString()
