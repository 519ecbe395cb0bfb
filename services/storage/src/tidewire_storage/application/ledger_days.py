"""The ledger's lines as people read them, when the readings of several hours lie in one block.

A merged block belongs to the first hour of what was merged, and so does what is present of it and what was purged. By
day the lines add up as they always did; by hour they are told apart here. Used when the ledger is shown.
"""

from dataclasses import replace

from tidewire_kit.ids import TenantId
from tidewire_storage.domain.rollups import DAY_US
from tidewire_storage.ports import LedgerAccount, LedgerLine


def by_hour(account: LedgerAccount, start_us: int, end_us: int) -> LedgerAccount:
    """The lines of hours that begin in [start_us, end_us); `account` has all lines of their days.

    What a day has purged is said of its first hours, and what is present of the hours that stored it. A difference is
    left where a line had one.
    """
    days: dict[tuple[TenantId, int], list[LedgerLine]] = {}
    for line in account.lines:
        tenant, hour_us = line.key
        days.setdefault((tenant, hour_us // DAY_US), []).append(line)
    lines: list[LedgerLine] = []
    for some in days.values():
        lines += some if all(_adds_up(line) for line in some) else _told_apart(some)
    found = [line for line in lines if start_us <= line.key[1] < end_us]
    return LedgerAccount(sorted(found, key=lambda line: (line.key[1], line.key[0])))


def _adds_up(line: LedgerLine) -> bool:
    return line.stored == line.purged + line.present


def _told_apart(lines: list[LedgerLine]) -> list[LedgerLine]:
    purged = sum(line.purged for line in lines)
    missing = sum(line.stored - line.purged - line.present for line in lines)
    odd = next(place for place, line in enumerate(lines) if not _adds_up(line))
    told = []
    for line in lines:
        here = min(max(line.stored, 0), purged)
        purged -= here
        told.append(replace(line, purged=here, present=line.stored - here))
    told[odd] = replace(
        told[odd], purged=told[odd].purged + purged, present=told[odd].present - missing - purged
    )
    return told
