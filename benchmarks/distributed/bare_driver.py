"""A bare driver: writes given rows as fast as Cassandra acknowledges them. What Cassandra alone gives on this machine.

Started by `bench_storage` as a process of its own. Reads the blocks that storage wrote to one keyspace and writes the
same rows to the same table of another, by the driver's own `execute_concurrent`. Prints {"bytes", "seconds"} as JSON.
"""

import argparse
import json
import time

from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.concurrent import execute_concurrent_with_args

COLUMNS = "tenant, incarnation, log_partition, slice, epoch, first_offset, end_offset, attempt, chunk, data"


def main() -> None:
    """Reads, writes, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contact-point", required=True, help="host:port")
    parser.add_argument("--source", required=True, help="keyspace to read from")
    parser.add_argument("--target", required=True, help="keyspace to write to")
    args = parser.parse_args()
    host, _, port = args.contact_point.partition(":")
    profile = ExecutionProfile(consistency_level=ConsistencyLevel.LOCAL_QUORUM, request_timeout=60)
    cluster = Cluster(
        [host],
        port=int(port),
        protocol_version=5,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        sockopts=[(6, 1, 1)],  # TCP_NODELAY
    )
    session = cluster.connect()
    rows = [tuple(row) for row in session.execute(f"SELECT {COLUMNS} FROM {args.source}.storage_blocks")]
    marks = ", ".join("?" for _ in COLUMNS.split(","))
    insert = session.prepare(f"INSERT INTO {args.target}.storage_blocks ({COLUMNS}) VALUES ({marks})")
    began = time.perf_counter()
    execute_concurrent_with_args(session, insert, rows, concurrency=64, raise_on_first_error=True)
    seconds = time.perf_counter() - began
    cluster.shutdown()
    print(json.dumps({"bytes": sum(len(row[-1]) for row in rows), "seconds": seconds}))


if __name__ == "__main__":
    main()
