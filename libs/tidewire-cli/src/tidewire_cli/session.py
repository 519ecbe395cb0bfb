"""One run of a command: who talks to which platform, how the answer is printed, and how it ends.

`command` turns a coroutine `async def create(session, ...)` into a Typer command with the options that all commands
share, so that they may stand behind the verb, where people write them.
"""

import asyncio
import errno
import functools
import inspect
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidewire_cli.output import Format, Output

if TYPE_CHECKING:
    from tidewire_cli.contexts import KubernetesRelease
    from tidewire_client import AsyncAdminClient, AsyncConnection, AsyncQueryClient, TidewireError

DONE, FAILED, USAGE, UNREACHABLE, REFUSED = 0, 1, 2, 3, 4
_PANEL = "Connection and output"
_TENANT_TOKEN_SECONDS = 3600
RETRY_SECONDS = 2.0


def _context_names(incomplete: str) -> list[str]:
    from tidewire_cli.contexts import load_contexts

    return [name for name in load_contexts().contexts if name.startswith(incomplete)]


_COMMON: dict[str, tuple[Any, Any]] = {
    "context": (
        Annotated[
            str,
            typer.Option(
                "--context",
                help="Context to use instead of the current one.",
                envvar="TIDEWIRE_CONTEXT",
                rich_help_panel=_PANEL,
                show_default=False,
                autocompletion=_context_names,
            ),
        ],
        "",
    ),
    "endpoint": (
        Annotated[
            str,
            typer.Option(
                "--endpoint",
                help="Address of the registry, host:port or grpcs://host:port.",
                envvar="TIDEWIRE_ENDPOINT",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        "",
    ),
    "token_file": (
        Annotated[
            Path | None,
            typer.Option(
                "--token-file",
                help="File that holds the token. The variable TIDEWIRE_TOKEN may hold the token itself.",
                envvar="TIDEWIRE_TOKEN_FILE",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        None,
    ),
    "tenant": (
        Annotated[
            str,
            typer.Option(
                "--tenant",
                help="Tenant; by default the context's, or the only one the token sees.",
                envvar="TIDEWIRE_TENANT",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        "",
    ),
    "output": (
        Annotated[
            Format, typer.Option("--output", "-o", help="How to print the answer.", rich_help_panel=_PANEL)
        ],
        Format.TABLE,
    ),
    "verbose": (
        Annotated[
            bool,
            typer.Option("--verbose", "-v", help="Show the whole trace of an error.", rich_help_panel=_PANEL),
        ],
        False,
    ),
}


@dataclass(frozen=True, slots=True)
class Options:
    """The options that all commands share, as given."""

    context: str = ""
    endpoint: str = ""
    token_file: Path | None = None
    tenant: str = ""
    output: Format = Format.TABLE
    verbose: bool = False
    use_environment: bool = True
    """False: the context was named on the command line, which says more than a variable somebody set before."""


class Session:
    """What a command works with; closed when it ends."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.out = Output(options.output)
        self.exit_code = DONE
        self._stack = AsyncExitStack()
        self._addresses: Mapping[str, str] = {}  # of ports that are forwarded
        self.release: KubernetesRelease | None = None
        """The release in a cluster that the connection leads to; None: it leads to an endpoint."""
        self._connection: AsyncConnection | None = None
        self._tenant_connection: AsyncConnection | None = None

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def connection(self) -> "AsyncConnection":
        """The connection as the caller the context names. Raises InvalidArgument without a token."""
        if self._connection is None:
            self._connection = await self._stack.enter_async_context(await self._connect())
        return self._connection

    async def _forward(self, release: "KubernetesRelease") -> str:
        """Forwards ports to a release in a cluster until the session ends; returns the registry's endpoint."""
        from tidewire_cli.kube.forward import Forwards

        forwards = await asyncio.to_thread(Forwards, release)
        self._stack.callback(forwards.close)
        self._addresses = await asyncio.to_thread(forwards.open)
        self.release = release
        return self._addresses["registry"]

    async def _connect(self) -> "AsyncConnection":
        from tidewire_cli.contexts import load_contexts
        from tidewire_client import AsyncConnection, FileToken, InvalidArgument, StaticToken, TokenSource
        from tidewire_client.connect import DEFAULT_ENDPOINT

        options = self.options
        context = load_contexts().get(options.context)
        source: TokenSource
        if options.token_file is not None:
            source = FileToken(options.token_file)
        elif options.use_environment and (token := os.environ.get("TIDEWIRE_TOKEN")):
            source = StaticToken(token)
        elif context is not None and context.token_file:
            source = FileToken(context.token_file)
        elif context is not None and context.token:
            source = StaticToken(context.token)
        else:
            raise InvalidArgument(
                "there is no token; start a platform here with `tidewire up`, create a context with "
                "`tidewire context create`, or give --token-file",
                field="token_file",
                reason="NO_TOKEN",
            )
        source.token()
        ca_file = os.environ.get("TIDEWIRE_CA_FILE", "") if options.use_environment else ""
        ca_file = ca_file or (context.ca_file if context is not None else "")
        endpoint = options.endpoint or (context.endpoint if context is not None else DEFAULT_ENDPOINT)
        if context is not None and context.kubernetes is not None and not options.endpoint:
            endpoint = await self._forward(context.kubernetes)
        return AsyncConnection(
            endpoint,
            token=source,
            tenant=options.tenant or (context.tenant if context is not None else ""),
            ca_file=ca_file or None,
            retry_seconds=RETRY_SECONDS,
            addresses=self._addresses,
        )

    async def tenant(self) -> str:
        """The tenant's id. Raises InvalidArgument when it is not clear which one is meant."""
        from tidewire_client import InvalidArgument

        try:
            return await (await self.connection()).tenant()
        except InvalidArgument as error:
            if error.reason == "TENANT_UNCLEAR":
                raise InvalidArgument(f"{error}: add --tenant NAME", field="tenant") from None
            raise

    async def tenant_connection(self) -> "AsyncConnection":
        """The connection for the tenant's data.

        A platform administrator belongs to no tenant, and only a tenant's own callers see its data; so an administrator
        makes a token for an hour and acts as the tenant's.
        """
        from tidewire_cli.claims import claims_of
        from tidewire_client import AsyncAdminClient, AsyncConnection

        if self._tenant_connection is None:
            connection = await self.connection()
            assert connection.token_source is not None
            claims = claims_of(connection.token_source.token())
            if "platform-admin" not in claims.roles or claims.tenant_uid:
                self._tenant_connection = connection
            else:
                tenant = await self.tenant()
                made = await AsyncAdminClient(connection).create_token(
                    claims.subject or "admin",
                    ["tenant-admin"],
                    tenant=tenant,
                    ttl=timedelta(seconds=_TENANT_TOKEN_SECONDS),
                )
                self._tenant_connection = await self._stack.enter_async_context(
                    AsyncConnection(
                        connection.endpoint,
                        token=made.token,
                        tenant=tenant,
                        ca_file=connection.ca_file,
                        retry_seconds=connection.retry_seconds,
                        addresses=self._addresses,
                    )
                )
        return self._tenant_connection

    async def admin(self) -> "AsyncAdminClient":
        """Client for tenants, devices, credentials, tokens."""
        from tidewire_client import AsyncAdminClient

        return AsyncAdminClient(await self.connection())

    async def query(self) -> "AsyncQueryClient":
        """Client for the tenant's data."""
        from tidewire_client import AsyncQueryClient

        return AsyncQueryClient(await self.tenant_connection())

    def confirm(self, question: str, *, yes: bool) -> None:
        """Asks, on a terminal; elsewhere `--yes` is needed. Raises typer.Exit when it is not wanted."""
        if yes:
            return
        if not sys.stdin.isatty():
            self.out.warn(f"{question} Add --yes to confirm.")
            raise typer.Exit(USAGE)
        if not typer.confirm(question, err=True):
            self.out.warn("Left as it is.")
            raise typer.Exit(FAILED)


def command(
    app: typer.Typer, name: str, **settings: Any
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Registers a coroutine function, whose first parameter is the session, as a command with the common options."""

    def register(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())[1:]
        common = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, (annotation, default) in _COMMON.items()
        ]
        common.append(inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))

        @functools.wraps(function)
        def run_command(**given: Any) -> None:
            options = _options(given.pop("ctx"), {key: given.pop(key) for key in _COMMON})
            raise typer.Exit(run(Session(options), lambda session: function(session, **given)))

        own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
        run_command.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
        run_command.__annotations__ = {one.name: one.annotation for one in [*own, *common]}
        app.command(name, **settings)(run_command)
        return run_command

    return register


def _options(ctx: typer.Context, given: dict[str, Any]) -> Options:
    """The common options; a context named on the command line puts what comes from the environment aside."""
    sources = {key: getattr(ctx.get_parameter_source(key), "name", "") for key in _COMMON}
    if sources["context"] != "COMMANDLINE":
        return Options(**given)
    for key in ("endpoint", "token_file", "tenant"):
        if sources[key] == "ENVIRONMENT":
            given[key] = _COMMON[key][1]
    return Options(**given, use_environment=False)


def run(session: Session, work: Callable[[Session], Awaitable[None]]) -> int:
    """Runs a command to its end. Returns the exit status; an error becomes one line on standard error."""
    os.environ.setdefault(
        "GRPC_VERBOSITY", "NONE"
    )  # read once by gRPC, whose own lines say less than our one
    from tidewire_client.errors import TidewireError

    async def inside() -> int:
        async with session:
            await work(session)
        return session.exit_code

    try:
        return asyncio.run(inside())
    except TidewireError as error:
        caught: BaseException = error
        reason, text, code = error.reason, error_line(error), exit_code_of(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on; no second error
        return DONE
    except OSError as error:
        caught = error
        text = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
        reason, code = errno.errorcode.get(error.errno or 0, "OS_ERROR"), FAILED
    if session.options.verbose:
        traceback.print_exception(caught)
    session.out.error(reason, text, code, f"Error: {text}")
    return code


_REMEDIES = {
    **dict.fromkeys(
        ("TOKEN_EXPIRED", "TOKEN_MALFORMED", "TOKEN_CLAIMS", "TOKEN_UNKNOWN_KEY", "TOKEN_BAD_SIGNATURE"),
        "An administrator makes one: tidewire token create.",
    ),
    "TENANT_BLOCKED": "A platform administrator can end the block: tidewire tenant unblock.",
    "DEVICE_BLOCKED": "End the block with: tidewire device unblock.",
}


def error_line(error: "TidewireError") -> str:
    """The error as a line that says what to do."""
    from tidewire_client import Unavailable

    text = " ".join(str(error).split())
    remedy = _REMEDIES.get(error.reason, "")
    if isinstance(error, Unavailable) and text.startswith("cannot reach"):
        remedy = "Is the platform running? Start one here with `tidewire up`, or choose another --context."
    if not remedy:
        return text
    return f"{text}{'' if text.endswith(('.', '?', '!')) else '.'} {remedy}"


def exit_code_of(error: "TidewireError") -> int:
    """3 when nobody could be reached, 4 when the platform said no, 2 when the command line is at fault, else 1."""
    from tidewire_client import InternalError, InvalidArgument, NotFound, Unavailable

    if isinstance(error, Unavailable):
        return UNREACHABLE
    if error.from_platform:
        return FAILED if isinstance(error, InternalError) else REFUSED
    return USAGE if isinstance(error, InvalidArgument | NotFound) else FAILED
