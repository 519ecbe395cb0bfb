"""The commands for a Kubernetes cluster: `k8s`. Found by the `tidewire` command like those of `commands`."""

from pathlib import Path
from typing import Annotated

import typer

from tidewire_cli.output import Format
from tidewire_platform.commands import OutputOption, run_command

k8s = typer.Typer(help="Tidewire on a Kubernetes cluster.", no_args_is_help=True)


@k8s.callback()
def _group() -> None:
    """Keeps `check` a command of its own while it is the only one."""


@k8s.command()
def check(
    namespace: Annotated[str, typer.Option(help="Default: that of the context.", show_default=False)] = "",
    release: Annotated[str, typer.Option(help="Name of the Helm release.")] = "tidewire",
    values: Annotated[
        list[Path] | None,
        typer.Option(
            "--values",
            "-f",
            help="Values that Helm is given, YAML; may be repeated, the last one counts.",
            show_default=False,
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    context: Annotated[
        str,
        typer.Option(
            "--kubernetes-context",
            help="Context of the kubeconfig. Default: the current one.",
            show_default=False,
        ),
    ] = "",
    pull: Annotated[
        bool,
        typer.Option(
            "--pull",
            help="Also let a node get the images of the values; starts a pod for that, and deletes it.",
        ),
    ] = False,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image", help="As --pull, of this image instead; may be repeated.", show_default=False
        ),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Look at a cluster before or after an installation; each fault comes with its remedy.

    Before: its version, this caller's rights, the storage class, metrics for autoscaling, the kinds that the values ask
    for, the namespace. After also the release's pods, images, volumes and Jobs. Changes nothing; only --pull and
    --image start a pod in the namespace for the time of the check, as nodes alone can tell which images they get. Ends
    with 1 when something is wrong (warnings alone are 0), with 3 when the cluster cannot be reached.
    """
    from tidewire_cli.output import Output
    from tidewire_platform.kube.commands import check_cluster

    pulled = (image or []) if pull or image else None
    run_command(check_cluster(namespace, release, values or [], context, Output(output), pulled))
