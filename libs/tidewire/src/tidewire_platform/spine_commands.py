"""The commands that bring Kafka's topics and Cassandra's schema to what this version needs: `topic` and `schema`.

Found by the `tidewire` command like those of `commands`. They take the same settings as the services and nothing else,
so that they run anywhere from a laptop to a job before a roll-out.
"""

import os
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from tidewire_cli.output import Format
from tidewire_platform.commands import run_command

topic = typer.Typer(help="The topics of the log, planned and made on Kafka.", no_args_is_help=True)
schema = typer.Typer(help="The tables of the services, planned and made on Cassandra.", no_args_is_help=True)

OutputOption = Annotated[Format, typer.Option("--output", "-o", help="How to print the answer.")]


@topic.command("plan")
def plan_topics(output: OutputOption = Format.TABLE) -> None:
    """Show which topics are missing or differ; changes nothing.

    Reads the settings TIDEWIRE_KAFKA_*. Ends with 0 when `tidewire topic apply` can do the rest or nothing is to do, 3
    when Kafka cannot be reached, 4 when a topic differs in what cannot be changed.
    """
    from tidewire_platform.topology import show_topics

    _run(show_topics, output, apply=False)


@topic.command("apply")
def apply_topics(output: OutputOption = Format.TABLE) -> None:
    """Create the topics that are missing; one that differs is refused with the remedy, and nothing is changed then.

    Safe to repeat and to run from several places at once. Exit status as for `tidewire topic plan`.
    """
    from tidewire_platform.topology import show_topics

    _run(show_topics, output, apply=True)


@schema.command("plan")
def plan_schema(output: OutputOption = Format.TABLE) -> None:
    """Show which steps the schema lacks; changes nothing.

    Reads the settings TIDEWIRE_CASSANDRA_*. Ends with 0 when `tidewire schema apply` can do the rest or nothing is to
    do, 3 when Cassandra cannot be reached, 4 when the keyspace was made by a newer version or by somebody else.
    """
    from tidewire_platform.topology import show_schema

    _run(show_schema, output, apply=False)


@schema.command("apply")
def apply_schema(output: OutputOption = Format.TABLE) -> None:
    """Make the keyspace and bring its tables up to date, step by step.

    Safe to repeat, and safe when several run at once: one does the work, the others wait. Exit status as for `tidewire
    schema plan`.
    """
    from tidewire_platform.topology import show_schema

    _run(show_schema, output, apply=True)


def _run(show: Callable[..., Coroutine[Any, Any, int]], output: Format, *, apply: bool) -> None:
    from tidewire_cli.output import Output
    from tidewire_platform.misspelt import warn_of_misspelt
    from tidewire_platform.quiet import quiet

    quiet()
    warn_of_misspelt(os.environ)
    run_command(show(os.environ, Output(output), apply=apply))
