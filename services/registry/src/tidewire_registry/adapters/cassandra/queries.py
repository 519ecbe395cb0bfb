"""Lists and counts by a filter. Called by store.CassandraStore.

A tenant's devices lie in DEVICE_BUCKETS partitions, each in order of ids. A list merges them and stops after a page;
every device that comes is tested with `filter.evaluation`, so an index need not be exact, only complete:

    one         name = "x" is a read by key
    below       ancestor("x") reads the ids below it, and these devices; if they are few, or no equality comes with it
    index       equality of labels, type, parent or state, also several, or one of several (OR), asks the index of each
                partition
    walk        everything else reads the partitions, within the bounds that conditions on `name` give
"""

# ruff: noqa: S608 - the texts are made of our own names; every value is a bind parameter

import asyncio
import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import product
from typing import Any

from tidewire_kit.filter import conditions as c
from tidewire_kit.filter.evaluation import predicate_of
from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.adapters.cassandra import rows
from tidewire_registry.adapters.cassandra.reads import Reads
from tidewire_registry.domain.devices import Device
from tidewire_registry.ports import Page

_MOST_ALTERNATIVES = 4
_MOST_CLAUSES = 3
_FEW = 1_000
_BUCKETS_AT_ONCE = 4
"""A count of a large fleet must not take all of Cassandra."""
_LAST = "\x7f"
"""Follows every character of a device's id."""
_COLUMNS = {c.TextField.TYPE: "type", c.TextField.PARENT: "parent"}


@dataclass(frozen=True, slots=True)
class Clause:
    """An equality that an index answers."""

    text: str
    parameters: tuple[Any, ...]
    rank: int
    """Lower: admits fewer devices, as a rule."""


Clauses = tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Walk:
    """Which rows of the partitions to read: from `low` to before `high`, of any of the alternatives."""

    low: str
    high: str
    alternatives: tuple[Clauses, ...]


class Queries:
    """One per store."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def page(
        self, tenant: TenantId, condition: c.Condition | None, after: str, limit: int
    ) -> Page[Device]:
        """Devices that the condition admits, by id, from the one that follows `after`."""
        found: list[Device] = []
        test = await self._test(tenant, condition)
        async with aclosing(self._candidates(tenant, condition, after, limit)) as candidates:
            async for some in candidates:
                found += [device for device in some if test(device)]
                if len(found) > limit:
                    break
        return Page(found[:limit], len(found) > limit)

    async def count(self, tenant: TenantId, condition: c.Condition) -> int:
        """How many devices the condition admits."""
        test = await self._test(tenant, condition)
        special = await self._by_key(tenant, condition, "")
        if special is not None:
            return sum([sum(map(test, some)) async for some in special])
        walk = _walk(condition, "")

        at_once = asyncio.Semaphore(_BUCKETS_AT_ONCE)

        async def count_bucket(bucket: int) -> int:
            seen: set[str] = set()
            async with at_once:
                for clauses in walk.alternatives:
                    async for page in self._rows(tenant, bucket, walk, clauses, 500):
                        seen.update(device.id for device in map(rows.device_of, page) if test(device))
            return len(seen)

        return sum(await asyncio.gather(*(count_bucket(bucket) for bucket in range(rows.DEVICE_BUCKETS))))

    # Inside

    async def _test(self, tenant: TenantId, condition: c.Condition | None) -> Callable[[Device], bool]:
        named = _ancestors(condition)
        uids: dict[str, Uid] = {}
        if named:
            found = await self._reads.devices(tenant, sorted(named))
            uids = {device.id: device.uid for device in found.values()}
        return predicate_of(condition, uids.get)

    async def _by_key(
        self, tenant: TenantId, condition: c.Condition | None, after: str
    ) -> AsyncIterator[list[Device]] | None:
        """The devices that can be admitted, when a conjunct names them or what they are below."""
        conjuncts = _conjuncts(condition)
        for conjunct in conjuncts:
            match conjunct:
                case c.TextIs(c.TextField.NAME, c.Operator.EQ, value):
                    return self._one(tenant, value, after)
        for conjunct in conjuncts:
            if isinstance(conjunct, c.HasAncestor) and (
                not _equalities(conjuncts) or await self._few_below(tenant, conjunct.device_id)
            ):
                return self._below(tenant, conjunct.device_id, after)
        return None

    async def _few_below(self, tenant: TenantId, device_id: str) -> bool:
        ancestor = (await self._reads.devices(tenant, [device_id])).get(device_id)
        if ancestor is None:
            return True
        ids = self._reads.descendant_ids(tenant, ancestor.uid, "", _FEW + 1)
        return len(await anext(ids, [])) <= _FEW

    async def _candidates(
        self, tenant: TenantId, condition: c.Condition | None, after: str, limit: int
    ) -> AsyncGenerator[list[Device]]:
        special = await self._by_key(tenant, condition, after)
        if special is not None:
            async for some in special:
                yield some
            return
        walk = _walk(condition, after)
        first = min(1_000, 2 * limit // rows.DEVICE_BUCKETS + 8)
        pages = [
            self._rows(tenant, bucket, walk, clauses, first if condition is None or clauses else 250)
            for bucket, clauses in product(range(rows.DEVICE_BUCKETS), walk.alternatives)
        ]
        async with aclosing(_merged(pages)) as merged:
            gathered: list[Device] = []
            async for row in merged:
                gathered.append(rows.device_of(row))
                if len(gathered) >= 100:
                    yield gathered
                    gathered = []
            yield gathered

    async def _one(self, tenant: TenantId, device_id: str, after: str) -> AsyncIterator[list[Device]]:
        if device_id > after:
            yield list((await self._reads.devices(tenant, [device_id])).values())

    async def _below(self, tenant: TenantId, device_id: str, after: str) -> AsyncIterator[list[Device]]:
        ancestor = (await self._reads.devices(tenant, [device_id])).get(device_id)
        if ancestor is None:
            return
        async for ids in self._reads.descendant_ids(tenant, ancestor.uid, after, 500):
            found = await self._reads.devices(tenant, ids)
            yield [found[id_] for id_ in ids if id_ in found]

    async def _rows(
        self, tenant: TenantId, bucket: int, walk: Walk, clauses: Clauses, page_rows: int
    ) -> AsyncIterator[list[Any]]:
        if walk.low >= walk.high:
            return
        text = (
            f"SELECT {rows.DEVICE_COLUMNS} FROM registry_devices"
            f" WHERE tenant = ? AND bucket = ? AND id >= ? AND id < ?{''.join(clause.text for clause in clauses)}"
        )
        values = [value for clause in clauses for value in clause.parameters]
        parameters = (tenant, bucket, walk.low, walk.high, *values)
        async for page in self._reads.pages(text, parameters, page_rows):
            yield page


# Plans


def _walk(condition: c.Condition | None, after: str) -> Walk:
    low, high = after + "\0" if after else "", _LAST
    conjuncts = _conjuncts(condition)
    for conjunct in conjuncts:
        match conjunct:
            case c.TextStartsWith(c.TextField.NAME, prefix):
                low, high = max(low, prefix), min(high, prefix + _LAST)
            case c.TextIs(c.TextField.NAME, c.Operator.GE | c.Operator.GT, value):
                low = max(low, value)
            case c.TextIs(c.TextField.NAME, c.Operator.LT, value):
                high = min(high, value)
            case c.TextIs(c.TextField.NAME, c.Operator.LE, value):
                high = min(high, value + "\0")
    clauses = _equalities(conjuncts)
    if clauses:
        return Walk(low, high, (clauses,))
    for conjunct in conjuncts:
        if isinstance(conjunct, c.Or) and len(conjunct.operands) <= _MOST_ALTERNATIVES:
            alternatives = tuple(_equalities(_conjuncts(operand)) for operand in conjunct.operands)
            if all(alternatives):
                return Walk(low, high, alternatives)
    return Walk(low, high, ((),))


def _equalities(conjuncts: Sequence[c.Condition]) -> Clauses:
    """The best of the conjuncts that an index answers; at most one of each column or label."""
    found: dict[str, Clause] = {}
    for conjunct in conjuncts:
        match conjunct:
            # An empty value is in no index.
            case c.LabelIs(key, c.Operator.EQ, value) if value:
                found.setdefault(f"labels.{key}", Clause(" AND labels[?] = ?", (key, value), 0))
            case c.TextIs(field, c.Operator.EQ, value) if value and field in _COLUMNS:
                column = _COLUMNS[field]
                rank = 1 if field is c.TextField.PARENT else 2
                found.setdefault(column, Clause(f" AND {column} = ?", (value,), rank))
            case c.StateIs(state):
                found.setdefault("state", Clause(" AND state = ?", (int(state),), 3))
    return tuple(sorted(found.values(), key=lambda clause: (clause.rank, clause.text))[:_MOST_CLAUSES])


def _conjuncts(condition: c.Condition | None) -> Sequence[c.Condition]:
    if condition is None:
        return ()
    return condition.operands if isinstance(condition, c.And) else (condition,)


def _ancestors(condition: c.Condition | None) -> set[str]:
    """The devices that `ancestor(...)` names anywhere in the condition."""
    match condition:
        case c.HasAncestor(device_id):
            return {device_id}
        case c.Not(operand):
            return _ancestors(operand)
        case c.And(operands) | c.Or(operands):
            return set().union(*map(_ancestors, operands))
    return set()


# Merging


async def _merged(sources: Sequence[AsyncIterator[list[Any]]]) -> AsyncGenerator[Any]:
    """The rows of all sources by id, each id once. Each source's next page is read ahead while one is being used."""
    reading = [asyncio.ensure_future(_next(source)) for source in sources]
    try:
        heap: list[tuple[str, int, int, list[Any]]] = []
        for i, task in enumerate(list(reading)):
            page = await task
            if page:
                heap.append((page[0].id, i, 0, page))
                reading[i] = asyncio.ensure_future(_next(sources[i]))
        heapq.heapify(heap)
        last = ""
        while heap:
            id_, i, at, page = heap[0]
            if id_ != last:
                yield page[at]
                last = id_
            if at + 1 < len(page):
                heapq.heapreplace(heap, (page[at + 1].id, i, at + 1, page))
                continue
            page = await reading[i]
            if page:
                heapq.heapreplace(heap, (page[0].id, i, 0, page))
                reading[i] = asyncio.ensure_future(_next(sources[i]))
            else:
                heapq.heappop(heap)
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)


async def _next(source: AsyncIterator[list[Any]]) -> list[Any]:
    return await anext(source, [])
