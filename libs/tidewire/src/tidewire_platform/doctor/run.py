"""Runs the checks of `tidewire doctor` that fit the backend, and shows what they found."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from tidewire_cli.output import Column, Output
from tidewire_kit import backend
from tidewire_kit.datadir import DataDir, open_data_dir
from tidewire_kit.endpoints import read_endpoints
from tidewire_kit.errors import FailedPrecondition, TidewireError
from tidewire_kit.settings import CommonSettings, load
from tidewire_platform.doctor.data_dir import check_data_dir
from tidewire_platform.doctor.finding import Finding, State, wrong
from tidewire_platform.doctor.lag import check_lag
from tidewire_platform.doctor.services import Known, check_services
from tidewire_platform.platform import ca_file_of

_COLUMNS = (
    Column("state", "STATE", str.upper),
    Column("check", "CHECK"),
    Column("subject", "SUBJECT"),
    Column("text", "FOUND"),
)


async def run_doctor(root: Path, environ: Mapping[str, str], out: Output) -> int:
    """Looks at everything; returns the exit status: 0 all well (warnings included), 1 something is wrong.

    Raises InvalidArgument for a setting that is wrong. Changes nothing.
    """
    common = load(CommonSettings, {**environ, "TIDEWIRE_DATA_DIR": str(root)})
    if common.backend == "distributed":
        # Only then: it imports the drivers.
        from tidewire_platform.doctor.distributed import check_distributed

        findings = await check_distributed(common, environ)
    else:
        findings = await _check_embedded(common, environ)
    return show(findings, out)


async def _check_embedded(common: CommonSettings, environ: Mapping[str, str]) -> list[Finding]:
    findings = await asyncio.to_thread(check_data_dir, common.data_dir)
    if (
        any(finding.state is State.WRONG for finding in findings)
        or not (common.data_dir / "VERSION").exists()
    ):
        return findings
    data_dir = open_data_dir(common.data_dir)
    lag = await _check_log(common, environ, data_dir)
    authority = ca_file_of(common)
    services = await check_services(_known(data_dir), authority.read_bytes() if authority else None)
    return [*findings, *lag, *services]


async def _check_log(common: CommonSettings, environ: Mapping[str, str], data_dir: DataDir) -> list[Finding]:
    log = backend.open_log(common, environ, data_dir, None)
    try:
        await log.start()
        await log.ensure_topics(backend.topic_specs(common, environ))
        return await check_lag(log, time.time_ns() // 1000)
    except FailedPrecondition as error:
        return [wrong("log", str(data_dir.log), error.message, "correct what the message names")]
    except TidewireError as error:
        return [
            wrong("log", str(data_dir.log), error.message, "see the logs in run/logs of the data directory")
        ]
    finally:
        await log.close()


def _known(data_dir: DataDir) -> Known:
    return {
        service: [(endpoint.address, endpoint.metrics_address) for endpoint in endpoints]
        for service, endpoints in read_endpoints(data_dir).items()
    }


def show(findings: list[Finding], out: Output) -> int:
    """Prints findings with their remedies; the exit status is: 0 all well, warnings included, 1 something wrong."""
    worst = {state: sum(finding.state is state for finding in findings) for state in State}
    if not out.for_people:
        out.data(
            {
                "well": not worst[State.WRONG],
                "warnings": worst[State.WARNING],
                "wrong": worst[State.WRONG],
                "findings": [finding.shown() for finding in findings],
            }
        )
        return 1 if worst[State.WRONG] else 0
    out.rows([finding.shown() for finding in findings], _COLUMNS)
    for finding in findings:
        if finding.remedy:
            out.text(f"\n{finding.check} {finding.subject}: {finding.text}.\n  → {finding.remedy}.")
    if worst[State.WRONG]:
        verdict = f"{worst[State.WRONG]} of {len(findings)} findings {'is' if worst[State.WRONG] == 1 else 'are'} wrong"
    else:
        verdict = "All is well" if not worst[State.WARNING] else "It works"
    warnings = worst[State.WARNING]
    out.text(f"\n{verdict}; {warnings} warning{'' if warnings == 1 else 's'}.")
    return 1 if worst[State.WRONG] else 0
