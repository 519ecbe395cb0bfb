"""Which member of a group gets which partition: a pure function that every member computes alike, without talking.

Rendezvous hashing gives each (partition, member) a weight; partitions go, in order, to the heaviest member that still
has room. All get ⌊n/m⌋ or ⌈n/m⌉, a member that comes or goes moves little more than its own share, and partitions of
the same number in topics of the same size go to the same member.
"""

from collections.abc import Sequence

import xxhash


def _weight(partition: int, name: str) -> int:
    return xxhash.xxh3_64_intdigest(f"{partition}/{name}".encode())


def assign(partitions: int, members: Sequence[str]) -> dict[str, list[int]]:
    """Member → its partitions, ascending. The order of `members` does not matter; no members: an empty dict."""
    names = sorted(set(members))
    given: dict[str, list[int]] = {name: [] for name in names}
    if not names:
        return given
    least, extra = divmod(partitions, len(names))
    for partition in range(partitions):
        by_weight = sorted(names, key=lambda name: _weight(partition, name), reverse=True)
        for name in by_weight:
            room = least + (1 if extra > 0 else 0)
            if len(given[name]) < room:
                if len(given[name]) == least:
                    extra -= 1
                given[name].append(partition)
                break
    return given
