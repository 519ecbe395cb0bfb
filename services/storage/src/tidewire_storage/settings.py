"""Settings of the storage service; read once, in `main`."""

from dataclasses import dataclass
from typing import ClassVar

from tidewire_kit.settings import setting


@dataclass(frozen=True, slots=True)
class Settings:
    """What storage reads besides the common settings."""

    PREFIX: ClassVar[str] = "TIDEWIRE_STORAGE_"

    port: int = setting(7003, minimum=0, maximum=65535)
    """Port of the gRPC API; 0 takes a free one."""

    metrics_port: int = setting(7103, minimum=0, maximum=65535)
    """Port of /metrics, /readyz, /livez and /startupz. 0: a free one."""

    flush_seconds: float = setting(2.0, minimum=0.05, maximum=4.0)
    """Longest time that rows are gathered before they are stored and visible, in seconds. Readings have to be visible
    within 5 s, and larger blocks are smaller on disk."""

    flush_cells: int = setting(2_000_000, minimum=1_000, maximum=50_000_000)
    """Most cells (rows × metrics) gathered before they are stored. Twice as many may be in memory, at 8 bytes each."""

    poll_seconds: float = setting(0.1, minimum=0.0, maximum=1.0)
    """Pause between two looks at the log while there is little in it, in seconds. Looking at each commit would cost
    more than storing what it holds; rows wait for `flush_seconds` anyway."""

    series_seconds: float = setting(1.5, minimum=0.0, maximum=4.0)
    """Least time between two writings of the newest values, in seconds. A busy device is then written seldom."""

    dedup_window_seconds: float = setting(600.0, minimum=1.0, maximum=600.0)
    """Log time for which a batch is recognised when it is sent again, in seconds. Ten minutes is longer than any device
    tries without a pause; beyond it readings collapse by device, metric and time."""

    epoch_seconds: int = setting(3600, minimum=1, maximum=3600)
    """Log time after which an epoch ends, in seconds; a divisor of 3600, so that no epoch spans two hours."""

    epoch_bytes: int = setting(64 << 20, minimum=1 << 10)
    """Gathered bytes after which an epoch ends, if that is sooner. Sealing it takes three times as much memory."""

    file_bytes: int = setting(256 << 20, minimum=1 << 10)
    """Size after which a new block file is begun. Deleting and expiring rewrite or remove whole files."""

    min_free_bytes: int = setting(256 << 20, minimum=0)
    """Below this much free disk nothing is stored until there is more. The log stops at more than this, so that what
    it acknowledged can still be stored."""

    seal_seconds: float = setting(2.0, minimum=0.05, maximum=3600)
    """Time between two looks for epochs that have ended and can be sealed, in seconds."""

    merge_seconds: int = setting(86400, minimum=1, maximum=86400)
    """Span of log time whose sealed epochs are merged into blocks of their own, and rolled up, once it has ended, in
    seconds; a divisor of 86400."""

    merge_readings: int = setting(30_000_000, minimum=1)
    """Readings of sealed epochs of one partition that are merged earlier than that: so many are enough for a merge."""

    cold_url: str = setting("")
    """Where readings of old days move to, as Parquet objects: an absolute path, or s3://BUCKET/PREFIX with the
    credentials of the AWS_* variables. Empty: they stay in the store. All storage processes need the same."""

    cold_after_days: float = setting(30.0, minimum=0.0, maximum=36500.0)
    """Days after whose end a day's readings move to the cold tier. It needs `cold_url`."""

    cold_fold_days: float = setting(7.0, minimum=0.0, maximum=3650.0)
    """Days for which a day in the cold tier gets no further object before late readings are folded into the others."""

    cold_move_seconds: float = setting(300.0, minimum=0.05, maximum=86400)
    """Time between two looks for days to move or to fold, in seconds. After a failure it doubles, up to 15 minutes."""

    cold_audit_seconds: float = setting(3600.0, minimum=0.05, maximum=604800)
    """Time between two comparisons of what lies in the cold tier with what is known of it, in seconds."""

    purge_seconds: float = setting(2.0, minimum=0.05, maximum=3600)
    """Time between two looks for deleted tenants and devices, in seconds."""

    expire_seconds: float = setting(600.0, minimum=0.05, maximum=86400)
    """Time between two removals of expired blocks, in seconds."""

    recount_seconds: float = setting(30.0, minimum=0.05, maximum=86400)
    """Time between two recounts of the loss ledger, in seconds. Only files that changed are read."""

    sql_seconds: float = setting(30.0, minimum=0.1, maximum=3600)
    """Longest time that a statement of RunSql may take, the delivery of its result included, in seconds."""

    sql_memory_bytes: int = setting(256 << 20, minimum=32 << 20, maximum=1 << 40)
    """Memory that a statement may use for joins, groups and sorting. Its process has some 200 MB besides; nothing is
    spilled to disk."""

    sql_scanned_rows: int = setting(20_000_000, minimum=1)
    """Most readings that a statement may scan, after what its filters on time, device and metric leave out."""

    sql_result_rows: int = setting(1_000_000, minimum=1)
    """Most rows in the result of a statement."""

    sql_result_bytes: int = setting(128 << 20, minimum=1 << 10)
    """Most bytes of Arrow in the result of a statement."""

    sql_statements: int = setting(3, minimum=0, maximum=1000)
    """Statements that run at once in one process of storage, each in a process of its own; 0: none is run."""

    sql_statements_per_tenant: int = setting(2, minimum=1, maximum=1000)
    """Those of them that may be of one tenant."""
