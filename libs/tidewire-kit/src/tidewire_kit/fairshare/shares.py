"""The arithmetic of quota shares: pure functions over columns, called once a second.

With N live processes a process gets its demand's part of the quota, and at least quota / (4 N), so that a publisher
who comes to a process where its tenant was silent is taken at once. What those on the least part take is taken off the
others' parts. Hence, for shares that were made of the same reports:

- The processes that have demand let at most the quota through, and none of them has to refuse anything while their
  demand together is within the quota.
- With the least parts of silent processes all parts sum up to at most quota x (1 + 1/4): that is the most that can pass
  after demand appears elsewhere, until the next reports have spread.
"""

import math

import numpy as np
from numpy.typing import NDArray

FLOOR = 0.25
"""The least part of a process, as a fraction of an equal part."""
AVERAGE_SECONDS = 2.0
"""Time constant of `average`: shares follow a change in a few seconds, and one batch does not throw them about."""

Columns = NDArray[np.float64]


def divide(demand: Columns, quota: Columns, members: int) -> Columns:
    """Returns each process's part of each quota, (processes, keys), as fractions of the quota.

    `demand`: (processes, keys), what each was asked for per second; `quota`: (keys,), above 0, in the same unit.
    `members`: live processes; those without a row have no demand. A key without any demand is divided equally. Every
    part is at least `FLOOR` / members and at most 1.
    """
    members = max(members, len(demand))
    least = quota * (FLOOR / members)
    total = demand.sum(axis=0)
    wanted = total > 0
    # Scaled, so that what is left of old demand neither underflows nor divides by nothing.
    parts = np.where(wanted, demand / np.where(wanted, total, 1.0), 1.0 / members)
    rates = parts * quota
    low = np.zeros(demand.shape, np.bool_)
    while True:
        now_low = low | ((rates < least) & wanted)
        if (now_low == low).all():
            return np.minimum(1.0, np.where(low, least, rates) / quota)
        low = now_low
        taken = np.where(low, np.minimum(demand, least), 0.0).sum(axis=0)
        rest = np.where(low, 0.0, parts)
        # Of the processes with demand one is always above the least part, so there is something to divide by.
        above = rest.sum(axis=0)
        rates = np.where(wanted, rest / np.where(above > 0, above, 1.0) * (quota - taken), rates)


def average[T: (float, Columns)](rate: T, asked: T, seconds: float) -> T:
    """Returns the moving average, per second, `seconds` after it was `rate` and with `asked` in between."""
    if seconds <= 0:
        return rate
    keep = math.exp(-seconds / AVERAGE_SECONDS)
    return rate * keep + asked * ((1.0 - keep) / seconds)
