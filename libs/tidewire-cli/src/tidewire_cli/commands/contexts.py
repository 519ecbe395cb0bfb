"""`tidewire context`: which platforms there are, and as whom one talks to them."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidewire_cli.output import Column
from tidewire_cli.session import Session, command

if TYPE_CHECKING:
    from tidewire_cli.contexts import KubernetesRelease

app = typer.Typer(help="Platforms to talk to, and as whom.", no_args_is_help=True)


def _names(incomplete: str) -> list[str]:
    from tidewire_cli.contexts import load_contexts

    return [name for name in load_contexts().contexts if name.startswith(incomplete)]


Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of the context.", show_default=False, autocompletion=_names),
]


@command(app, "list")
async def list_(session: Session) -> None:
    """List contexts; the one in use has a star."""
    from tidewire_cli.contexts import load_contexts

    kept = load_contexts()
    rows = [
        {
            "current": name == kept.current,
            "name": name,
            "endpoint": one.place,
            "tenant": one.tenant,
            "token_file": one.token_file,
        }
        for name, one in kept.contexts.items()
    ]
    session.out.rows(
        rows,
        (
            Column("current", "", lambda current: "*" if current else ""),
            Column("name", "CONTEXT"),
            Column("endpoint", "ENDPOINT"),
            Column("tenant", "TENANT"),
            Column("token_file", "TOKEN FILE"),
        ),
        empty="There is no context. `tidewire up` makes one; so does `tidewire context create`.",
    )


@command(app, "get")
async def get(session: Session, name: Annotated[str, typer.Argument(metavar="NAME")] = "") -> None:
    """Show a context, by default the one in use. A token that it holds is not shown."""
    from tidewire_cli.contexts import load_contexts
    from tidewire_client import NotFound

    kept = load_contexts()
    one = kept.get(name)
    if one is None:
        raise NotFound("no context is in use; choose one with `tidewire context use NAME`")
    session.out.one(
        {
            "name": name or kept.current,
            "endpoint": one.place,
            "tenant": one.tenant,
            "token_file": one.token_file,
            "has_token": bool(one.token or one.token_file),
            "ca_file": one.ca_file,
        }
    )


@command(app, "use")
async def use(session: Session, name: Name) -> None:
    """Use a context from now on."""
    from tidewire_cli.contexts import use_context

    use_context(name)
    session.out.done(f"Using context {name}.", {"current": name})


@command(app, "create")
async def create(
    session: Session,
    name: Name,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", help="Certificate authorities to trust, PEM.", show_default=False),
    ] = None,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read the token from standard input and keep it here.")
    ] = False,
    no_use: Annotated[bool, typer.Option("--no-use", help="Leave the context in use as it is.")] = False,
    kubernetes_context: Annotated[
        str,
        typer.Option(
            help="Context of the kubeconfig: the platform is in that cluster, and ports are forwarded to it.",
            show_default=False,
        ),
    ] = "",
    namespace: Annotated[
        str, typer.Option(help="Namespace in the cluster. Default: the context's.", show_default=False)
    ] = "",
    release: Annotated[
        str, typer.Option(help="Name of the Helm release in the cluster.", show_default=False)
    ] = "",
    keys_secret: Annotated[
        str,
        typer.Option(
            help="Secret that holds the administrator's token. Default: the release's own.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Create or replace a context from --endpoint, --tenant and --token-file, and use it.

    With --kubernetes-context, --namespace or --release it leads into a cluster: every command then forwards ports to
    the pods of the release by itself. The administrator's token is taken from the cluster unless one is given.
    """
    from tidewire_cli.contexts import Context, write_context
    from tidewire_client import InvalidArgument

    options = session.options
    in_cluster = bool(kubernetes_context or namespace or release)
    if in_cluster == bool(options.endpoint):
        why = "goes not with a cluster; leave it out" if in_cluster else "is missing"
        raise InvalidArgument(f"--endpoint {why}", field="endpoint")
    token = sys.stdin.readline().strip() if token_stdin else ""
    found = None
    if in_cluster:
        given = bool(token or options.token_file)
        found, read = await asyncio.to_thread(
            _in_cluster, kubernetes_context, namespace, release or "tidewire", keys_secret, given
        )
        token = token or read
    context = Context(
        options.endpoint,
        options.tenant,
        str(options.token_file.expanduser().absolute()) if options.token_file else "",
        token,
        str(ca_file.expanduser().absolute()) if ca_file else "",
        found,
    )
    path = write_context(name, context, use=not no_use)
    session.out.done(f"Wrote context {name} to {path}.", {"name": name, "file": str(path)})


def _in_cluster(
    context: str, namespace: str, release: str, secret: str, token_given: bool
) -> "tuple[KubernetesRelease, str]":
    """The release with its context and namespace by name, and the token unless there is one."""
    from tidewire_cli.contexts import KubernetesRelease
    from tidewire_cli.kube.admin_token import read_admin_token
    from tidewire_cli.kube.cluster import connect

    cluster = connect(context, namespace)
    try:
        token = "" if token_given else read_admin_token(cluster, release, secret)
        return KubernetesRelease(cluster.context, cluster.namespace, release), token
    finally:
        cluster.close()


@command(app, "delete")
async def delete(session: Session, name: Name) -> None:
    """Remove a context. The platform and token files stay as they are."""
    from tidewire_cli.contexts import delete_context

    delete_context(name)
    session.out.done(f"Removed context {name}.", {"deleted": name})
