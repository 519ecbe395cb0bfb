"""The verbs `tidewire storage backup`, `restore` and `backups`, for the machine that has the data directory.

Found by the entry point group `tidewire.commands`, which adds them to the noun `storage`.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidewire_cli.looks import counted, human_bytes
from tidewire_cli.output import Column, Output
from tidewire_platform.commands import FAILED, DataDirOption, OutputOption, given_data_dir, run_blocking

if TYPE_CHECKING:
    from tidewire_platform.backup.manifest import Manifest
    from tidewire_platform.backup.restoring import Restored
    from tidewire_platform.backup.saving import Saved

from tidewire_cli.output import Format

storage = typer.Typer(help="What is kept in storage.", no_args_is_help=True)

_PLACE = (
    "A directory, or s3://BUCKET/PREFIX with AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY set."
)
Destination = Annotated[str, typer.Argument(metavar="DEST", help=_PLACE, show_default=False)]
Source = Annotated[str, typer.Argument(metavar="SOURCE", help=_PLACE, show_default=False)]


@storage.command("backup")
def backup(
    dest: Destination,
    data_dir: DataDirOption = None,
    full: Annotated[bool, typer.Option("--full", help="Send everything again, also what DEST has.")] = False,
    wait: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="How long to wait until storage has stored what the log holds."
        ),
    ] = 60.0,
    allow_unstored: Annotated[
        bool,
        typer.Option(
            "--allow-unstored", help="Leave out what the log holds and storage has not stored in time."
        ),
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Back up the data directory of this machine, while the platform serves or is stopped.

    Holds everything that was acknowledged before it began: readings, events, tenants, devices and credentials. The
    first backup to a DEST is full, later ones send what is new; each is restored by itself. Keys and tokens are not in
    it. With TIDEWIRE_BACKEND=distributed use Cassandra's snapshots; see the how-to page.
    """

    def work() -> int:
        from tidewire_kit.datadir import open_data_dir
        from tidewire_kit.errors import FailedPrecondition
        from tidewire_platform.backup.places import place_at
        from tidewire_platform.backup.progress import Progress
        from tidewire_platform.backup.saving import save

        _embedded_only()
        root = given_data_dir(data_dir)
        if not (root / "VERSION").exists():
            raise FailedPrecondition(
                f"{root} holds no platform's data; name its directory by --data-dir or TIDEWIRE_DATA_DIR",
                reason="NO_DATA",
                subject=str(root),
            )
        out = Output(output)
        place = place_at(dest, os.environ)
        with Progress(out, "Backed up") as progress:
            saved = save(
                open_data_dir(root),
                place,
                progress,
                wait_seconds=wait,
                allow_unstored=allow_unstored,
                full=full,
            )
        out.done(_saved_sentence(saved, place.name), _saved_plain(saved))
        return 0

    run_blocking(work)


@storage.command("restore")
def restore(
    source: Source,
    data_dir: DataDirOption = None,
    backup: Annotated[
        str,
        typer.Option(
            "--backup", metavar="NAME", help="Which backup. Default: the newest.", show_default=False
        ),
    ] = "",
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Put it in the place of what the data directory holds, which is lost."
        ),
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Restore a backup into a data directory on this machine; the platform must not run there.

    Every object is checked, and the readings are counted against the ledger, before anything is put in its place.
    Then `tidewire up` goes on from there. Keys in the data directory stay; without any, new ones are made, and users
    need new tokens. Ends with status 1 when the ledger does not add up.
    """

    def work() -> int:
        from tidewire_platform.backup.places import place_at
        from tidewire_platform.backup.progress import Progress
        from tidewire_platform.backup.restoring import restore as restore_backup

        _embedded_only()
        root = given_data_dir(data_dir)
        out = Output(output)
        with Progress(out, "Restored") as progress:
            restored = restore_backup(place_at(source, os.environ), backup, root, progress, replace=replace)
        out.done(_restored_sentence(restored, root), _restored_plain(restored))
        if restored.difference_readings or restored.difference_events:
            out.warn(
                f"Warning: the ledger does not add up: difference {restored.difference_readings:,} readings and "
                f"{restored.difference_events:,} events. What was backed up is there unchanged, so it was so before."
            )
            return FAILED
        return 0

    run_blocking(work)


@storage.command("backups")
def backups(
    source: Source,
    output: OutputOption = Format.TABLE,
) -> None:
    """List the backups at a place, the oldest first, and whether all their objects are there."""

    def work() -> int:
        from tidewire_platform.backup.listing import listed
        from tidewire_platform.backup.places import place_at

        out = Output(output)
        rows = listed(place_at(source, os.environ))
        out.rows(
            rows,
            (
                Column("backup", "BACKUP"),
                Column("time", "TIME"),
                Column("bytes", "BYTES", human_bytes, right=True),
                Column("new_bytes", "NEW", human_bytes, right=True),
                Column("previous", "PREVIOUS"),
                Column("state", "STATE"),
            ),
            empty="No backup is there yet.",
        )
        return FAILED if any(row["state"] != "whole" for row in rows) else 0

    run_blocking(work)


def _embedded_only() -> None:
    from tidewire_kit.errors import FailedPrecondition
    from tidewire_kit.settings import CommonSettings, load

    if load(CommonSettings, os.environ).backend != "embedded":
        raise FailedPrecondition(
            "this command is for the embedded backend; with TIDEWIRE_BACKEND=distributed the data is in Cassandra: "
            "back it up by Cassandra's snapshots, see docs/how-to/back-up-and-restore.md",
            reason="BACKUP_EMBEDDED_ONLY",
        )


def _saved_plain(saved: "Saved") -> dict[str, Any]:
    return {
        **_plain(saved.manifest),
        "sent_bytes": saved.sent_bytes,
        "sent_objects": saved.sent_objects,
        "unstored_records": saved.manifest.unstored_records,
    }


def _plain(manifest: "Manifest") -> dict[str, Any]:
    return {
        "backup": manifest.backup,
        "time": datetime.fromtimestamp(manifest.time_us / 1e6, UTC).isoformat(),
        "previous": manifest.previous,
        "bytes": manifest.length,
        "files": len(manifest.files),
    }


def _saved_sentence(saved: "Saved", place: str) -> str:
    manifest = saved.manifest
    return (
        f"Backup {manifest.backup} is in {place}: {counted(len(manifest.files), 'file')}, "
        f"{human_bytes(manifest.length)}, of which {human_bytes(saved.sent_bytes)} were new."
    )


def _restored_plain(restored: "Restored") -> dict[str, Any]:
    return {
        **_plain(restored.manifest),
        "tenants": restored.tenants,
        "devices": restored.devices,
        "readings": restored.readings,
        "events": restored.events,
        "difference_readings": restored.difference_readings,
        "difference_events": restored.difference_events,
    }


def _restored_sentence(restored: "Restored", root: Path) -> str:
    verdict = "all accounted for" if not restored.difference_readings else "the ledger does not add up"
    return (
        f"Restored {restored.manifest.backup} into {root}: {counted(restored.tenants, 'tenant')}, "
        f"{counted(restored.devices, 'device')}, {counted(restored.readings, 'reading')} ({verdict}), "
        f"{counted(restored.events, 'event')}. Start it by `tidewire up --data-dir {root}`."
    )
