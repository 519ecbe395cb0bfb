"""The commands that only the all-in-one distribution has: `up`, `demo`, `doctor` and `admin bootstrap`.

The `tidewire` command finds them by the entry point group `tidewire.commands`. Heavy imports wait until a command runs,
because every call of `tidewire` imports this module.
"""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidewire_cli.output import Format

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

FAILED, USAGE, UNREACHABLE, REFUSED, INTERRUPTED = 1, 2, 3, 4, 130
_REFUSALS = frozenset(
    {
        "BACKUP_RUNNING",
        "DATA_DIR_NOT_EMPTY",
        "LOG_NOT_STORED",
        "PLATFORM_RUNNING",
        "SCHEMA_CHANGED",
        "SCHEMA_NEWER",
        "STORE_KEYSPACE_FOREIGN",
        "STORE_REPLICATION",
        "TOO_FEW_BROKERS",
        "TOPIC_MISMATCH",
    }
)
"""Reasons by which what is there says no; the other failures are of our own doing."""
_UNREACHED = frozenset({"STORE_UNRESOLVABLE"})
"""Reasons by which nobody was asked at all."""

admin = typer.Typer(help="Set up a platform: keys and first tokens.", no_args_is_help=True)

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="TIDEWIRE_DATA_DIR",
        help="Directory of all data. Default: $XDG_DATA_HOME/tidewire.",
        show_default=False,
    ),
]
OutputOption = Annotated[Format, typer.Option("--output", "-o", help="How to print the answer.")]
Processes = Annotated[int, typer.Option(min=1, max=64, help="Number of processes; one a core is right.")]


def _port(variable: str) -> Any:
    return typer.Option(
        min=0, max=65535, envvar=variable, help="Port; 0 takes a free one.", show_default=False
    )


def given_data_dir(given: Path | None) -> Path:
    """The data directory that was named, or the usual one."""
    import os

    from tidewire_kit.settings import default_data_dir

    return (given or default_data_dir(os.environ)).expanduser().absolute()


def up(
    data_dir: DataDirOption = None,
    host: Annotated[str, typer.Option(envvar="TIDEWIRE_HOST", help="Address to listen on.")] = "127.0.0.1",
    registry_port: Annotated[int | None, _port("TIDEWIRE_REGISTRY_PORT")] = None,
    registry_metrics_port: Annotated[int | None, _port("TIDEWIRE_REGISTRY_METRICS_PORT")] = None,
    ingestion_port: Annotated[int | None, _port("TIDEWIRE_INGESTION_PORT")] = None,
    ingestion_metrics_port: Annotated[int | None, _port("TIDEWIRE_INGESTION_METRICS_PORT")] = None,
    storage_port: Annotated[int | None, _port("TIDEWIRE_STORAGE_PORT")] = None,
    storage_metrics_port: Annotated[int | None, _port("TIDEWIRE_STORAGE_METRICS_PORT")] = None,
    ingestion_processes: Processes = 1,
    storage_processes: Processes = 1,
    registry_processes: Annotated[
        int, typer.Option(min=1, max=64, help="Number of processes; one on the embedded backend.")
    ] = 1,
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help="Take free ports where none is named.")
    ] = False,
    health_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of one page of health for all services: /readyz, /livez and /startupz; 0 takes a free one. "
            "Default: TIDEWIRE_UP_HEALTH_PORT, else none.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the whole platform here, until Ctrl-C.

    Starts registry, ingestion and storage over one data directory, waits until all serve, starts again what dies, and
    writes the context `local` for the platform's administrator. With TIDEWIRE_BACKEND=distributed the data is in the
    Kafka and Cassandra that the settings name: their topics and schema are brought up to date first, and the data
    directory keeps keys and logs.
    """
    import os

    from tidewire_platform.foreground import run_up
    from tidewire_platform.misspelt import warn_of_misspelt
    from tidewire_platform.specs import PlatformOptions

    warn_of_misspelt(os.environ)
    options = PlatformOptions(
        data_dir=given_data_dir(data_dir),
        host=host,
        ports={
            "registry": (registry_port, registry_metrics_port),
            "ingestion": (ingestion_port, ingestion_metrics_port),
            "storage": (storage_port, storage_metrics_port),
        },
        ingestion_processes=ingestion_processes,
        storage_processes=storage_processes,
        registry_processes=registry_processes,
        free_ports=free_ports,
        health_port=health_port,
    )
    run_command(run_up(options))


def demo(
    data_dir: Annotated[
        Path | None, typer.Option(help="Directory of all data. Default: .tidewire.", show_default=False)
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=1, help="End by itself after so long; else at Ctrl-C.", show_default=False),
    ] = None,
    temporary: Annotated[
        bool,
        typer.Option("--temporary", help="In a temporary directory, on free ports; nothing is left behind."),
    ] = False,
    keep_times: Annotated[
        bool,
        typer.Option("--keep-times", help="Keep the times of the real readings instead of ending them now."),
    ] = False,
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help="Take free ports where none is named.")
    ] = False,
) -> None:
    """Show the platform at work on real readings and a simulated fleet.

    Starts the platform, or attaches to the one that runs on the data directory; makes the tenant and context `demo`;
    imports what a glucose sensor and a sea buoy have measured, replays their last day at 60× beside 200 simulated
    meters, and shows what is accepted, refused and visible. Run again, it resumes and imports nothing twice.
    """
    import os

    from tidewire_platform.demo.console import DemoConsole
    from tidewire_platform.demo.run import DemoOptions, run_demo
    from tidewire_platform.misspelt import warn_of_misspelt
    from tidewire_platform.specs import PlatformOptions

    if temporary and data_dir is not None:
        raise typer.BadParameter("--temporary makes a directory of its own; leave out --data-dir")
    data_dir = data_dir or Path(".tidewire")
    warn_of_misspelt(os.environ)
    platform = PlatformOptions(data_dir=data_dir.expanduser().absolute(), free_ports=free_ports)
    run_command(run_demo(DemoOptions(platform, seconds, temporary, keep_times=keep_times), DemoConsole()))


def doctor(data_dir: DataDirOption = None, output: OutputOption = Format.TABLE) -> None:
    """Look at everything the platform depends on; each fault comes with its remedy.

    On one machine the data directory, the log and the services; with TIDEWIRE_BACKEND=distributed Kafka, Cassandra,
    their topics, schema, replication and clocks, the lag of the consumers, and the services. Changes nothing. Ends with
    status 1 when something is wrong; warnings alone are status 0.
    """
    import os

    from tidewire_cli.output import Output
    from tidewire_platform.doctor.run import run_doctor
    from tidewire_platform.misspelt import warn_of_misspelt
    from tidewire_platform.quiet import quiet

    quiet()
    warn_of_misspelt(os.environ)
    run_command(run_doctor(given_data_dir(data_dir), os.environ, Output(output)))


@admin.command()
def bootstrap(
    data_dir: DataDirOption = None,
    kubernetes_secret: Annotated[
        str,
        typer.Option(metavar="NAME", help="Make them in this Kubernetes Secret instead.", show_default=False),
    ] = "",
    namespace: Annotated[
        str,
        typer.Option(
            help="The Secret's namespace. Default: the pod's own, or that of the context.", show_default=False
        ),
    ] = "",
    kubernetes_context: Annotated[
        str, typer.Option(help="Context of the kubeconfig. Default: the current one.", show_default=False)
    ] = "",
) -> None:
    """Make the signing key, the services' token and the first administrator's token; does nothing when they exist.

    In a Secret they are the entries signing-key.pem, service-token and admin-token; there nothing is ever renewed, and
    several may run this at once. It takes the rights to get, create and patch that Secret.
    """
    if kubernetes_secret:
        from tidewire_platform.kube.commands import bootstrap_in_secret

        run_command(bootstrap_in_secret(kubernetes_secret, namespace, kubernetes_context))
    if namespace or kubernetes_context:
        raise typer.BadParameter("only with --kubernetes-secret", param_hint="--namespace")
    from tidewire_kit.datadir import open_data_dir
    from tidewire_registry.bootstrap import bootstrap as make_keys

    async def make() -> int:
        opened = open_data_dir(given_data_dir(data_dir))
        make_keys(opened.root)
        print(f"The administrator's token is in {opened.admin_token_file}")
        return 0

    run_command(make())


def run_command(work: "Coroutine[object, object, int]") -> None:
    """Runs a command's coroutine and exits. Errors become a line with the remedy, and their exit status."""
    run_blocking(lambda: asyncio.run(work))


def run_blocking(work: "Callable[[], int]") -> None:
    """The same for a command that needs no loop."""
    try:
        status = work()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - raised again unless it is one of ours
        status = _report(error)
    raise typer.Exit(status)


def _report(error: Exception) -> int:
    # Imported only now: the SDK brings gRPC, which would delay every start.
    from tidewire_cli.session import exit_code_of
    from tidewire_client.errors import TidewireError as ClientError
    from tidewire_kit.errors import FailedPrecondition, InvalidArgument, TidewireError, Unavailable
    from tidewire_platform.platform import Interrupted

    if isinstance(error, Interrupted):
        return INTERRUPTED
    if not isinstance(error, TidewireError | ClientError):
        raise error
    print(f"Error: {error}", file=sys.stderr)
    if isinstance(error, ClientError):
        return exit_code_of(error)
    if isinstance(error, InvalidArgument):
        return USAGE
    if isinstance(error, Unavailable) or error.reason in _UNREACHED:
        return UNREACHABLE
    if isinstance(error, FailedPrecondition) and error.reason in _REFUSALS:
        return REFUSED
    return FAILED
