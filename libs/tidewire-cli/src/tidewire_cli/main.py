"""The `tidewire` command: puts the verbs and nouns together, with those of other distributions that are installed.

Console entry point `tidewire`. What a command needs is imported when it runs, so that help and completion stay quick.
"""

import inspect
import sys
from importlib.metadata import entry_points
from typing import Annotated

import typer

from tidewire_cli.commands import (
    contexts,
    credentials,
    devices,
    events,
    imports,
    ledger,
    publish,
    query,
    report,
    sql,
    status,
    tenants,
    tokens,
)
from tidewire_cli.session import command

EXTENSIONS = "tidewire.commands"
"""Entry point group: each names a function to be a verb, or a Typer application to be a noun."""

_HELP = """Tidewire: telemetry of devices, taken in, kept and queried.

Start a platform here with `tidewire up` (in the distribution `tidewire`), or name one with `tidewire context create`.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 nobody could be reached, 4 the platform refused.
"""


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"tidewire {version('tidewire-cli')}")
        raise typer.Exit


def build() -> typer.Typer:
    """The whole application."""
    app = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="rich",
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
        ] = False,
    ) -> None:
        pass

    root.__doc__ = _HELP
    command(app, "status")(status.status)
    command(app, "query")(query.query)
    command(app, "sql")(sql.sql)
    command(app, "report")(report.report)
    command(app, "publish")(publish.publish)
    command(app, "simulate")(publish.simulate)
    command(app, "import")(imports.import_)
    for name, noun in {
        "tenant": tenants.app,
        "device": devices.app,
        "event": events.app,
        "credential": credentials.app,
        "token": tokens.app,
        "context": contexts.app,
        "ledger": ledger.app,
        "storage": ledger.storage,
    }.items():
        app.add_typer(noun, name=name)
    for entry in sorted(entry_points(group=EXTENSIONS), key=lambda entry: entry.name):
        try:
            extension = entry.load()
        except ImportError as error:  # half installed: the rest of the command still works
            print(f"Warning: the command `{entry.name}` cannot be loaded: {error}", file=sys.stderr)
            continue
        if isinstance(extension, typer.Typer):
            app.add_typer(extension, name=entry.name)
        else:
            app.command(entry.name)(extension)
    _unwrap_help(app)
    return app


def _unwrap_help(app: typer.Typer) -> None:
    """Joins the lines of each paragraph of help: Typer would break them where the source does, whatever the screen."""
    for info in app.registered_commands:
        paragraphs = inspect.cleandoc(info.help or getattr(info.callback, "__doc__", None) or "").split(
            "\n\n"
        )
        info.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _unwrap_help(group.typer_instance)


def run() -> None:
    """Runs the command line and exits."""
    build()(prog_name="tidewire")
