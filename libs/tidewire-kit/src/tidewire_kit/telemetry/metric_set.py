"""A metric set: the columns of a frame, with what is worth computing once for all frames that have them.

Ingestion keeps one object per set and tenant, so that frames of equal columns are recognised by identity.
"""

import xxhash

from tidewire_kit.telemetry.record import encode_metrics


class MetricSet:
    """Metric names in order. Compared by identity."""

    __slots__ = ("field", "members", "names", "seed")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.members = frozenset(names)
        self.field = encode_metrics(names)
        """The names as they stand in a record."""
        self.seed = xxhash.xxh3_64_intdigest("\n".join(names).encode())
        """What digests of this set's segments start from: equal values of other metrics are other readings."""

    def __repr__(self) -> str:
        return f"MetricSet({', '.join(self.names)})"
