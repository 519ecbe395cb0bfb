"""One at a time changes the tables: a lock in the keyspace itself, with a lease. Used by `schema` only.

Every pod may ask for it at once. Who holds it renews it before every statement, so a holder that was paused beyond its
lease stops before it does harm; after a crash the lease ends by itself (a TTL, by the nodes' clocks).

The lock's own table is what several processes may create at the same time through several nodes. Without care each node
would give it another id, and such nodes refuse each other's schema until they are restarted. So its id is fixed.
"""

import asyncio
import random
import time
import uuid

from tidewire_kit.cassandra.errors import DEPENDENCY, OUTCOME_UNKNOWN
from tidewire_kit.cassandra.session import CassandraSession
from tidewire_kit.errors import Unavailable

TABLE = "schema_lock"
LEASE_SECONDS = 60
_NAMESPACE = uuid.UUID("6f1f0a3e-6c0e-5d0b-9a4e-2d1f6f7b6c52")
_NAME = "schema"


def create_table(keyspace: str) -> str:
    """Returns the statement that creates the lock's table."""
    identity = uuid.uuid5(_NAMESPACE, f"{keyspace}.{TABLE}")
    return (
        f"CREATE TABLE IF NOT EXISTS {keyspace}.{TABLE} (name text PRIMARY KEY, owner uuid) "
        f"WITH id = {identity} AND comment = 'who changes the tables'"
    )


class SchemaLock:
    """The lock of one keyspace, as this process sees it."""

    def __init__(self, session: CassandraSession, keyspace: str, lease_seconds: int = LEASE_SECONDS) -> None:
        self._session = session
        self._table = f"{keyspace}.{TABLE}"
        self._owner = uuid.uuid4()
        self._lease_seconds = lease_seconds

    async def try_acquire(self) -> bool:
        """Takes the lock if nobody has it."""
        insert = await self._session.prepare(
            f"INSERT INTO {self._table} (name, owner) VALUES (?, ?) IF NOT EXISTS USING TTL ?"  # noqa: S608
        )
        try:
            outcome = await self._session.apply(insert, (_NAME, self._owner, self._lease_seconds))
            return outcome.applied or (outcome.row is not None and outcome.row.owner == self._owner)
        except Unavailable as error:
            if error.reason != OUTCOME_UNKNOWN:
                raise
            return await self._renewed()

    async def renew(self) -> None:
        """Begins the lease anew. Raises Unavailable (SCHEMA_LOCKED) when it had ended and another has the lock."""
        if not await self._renewed():
            raise locked()

    async def release(self) -> None:
        """Gives the lock back; when that fails the lease's end does."""
        delete = await self._session.prepare(f"DELETE FROM {self._table} WHERE name = ? IF owner = ?")  # noqa: S608
        try:
            await self._session.apply(delete, (_NAME, self._owner))
        except Unavailable:
            pass

    async def _renewed(self) -> bool:
        update = await self._session.prepare(
            f"UPDATE {self._table} USING TTL ? SET owner = ? WHERE name = ? IF owner = ?"  # noqa: S608
        )
        deadline = time.monotonic() + self._session.settings.request_timeout_seconds
        while True:
            try:
                outcome = await self._session.apply(
                    update, (self._lease_seconds, self._owner, _NAME, self._owner)
                )
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(random.uniform(0.05, 0.15))
            else:
                return outcome.applied


def locked() -> Unavailable:
    """Returns what to raise when another process has the lock for too long."""
    return Unavailable(
        DEPENDENCY,
        f"another process changes the tables; its lock ends by itself within {LEASE_SECONDS} s when it is dead",
        reason="SCHEMA_LOCKED",
        retry_delay_seconds=5.0,
    )
