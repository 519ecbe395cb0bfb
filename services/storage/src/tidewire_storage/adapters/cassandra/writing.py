"""Commits: flushes of owners, and the removals and rewritings of upkeep, as changes of a place's head."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tidewire_kit.ids import TenantId
from tidewire_kit.owner import WINDOW_SECONDS, WINDOW_SEGMENTS, LedgerCounts
from tidewire_storage.adapters.cassandra import reading, rows
from tidewire_storage.adapters.cassandra.attempts import NAMED, Attempts, check_age
from tidewire_storage.adapters.cassandra.books import Books, Draft, Key
from tidewire_storage.adapters.cassandra.heads import Change, Head, Heads, new_attempt, now_us
from tidewire_storage.adapters.cassandra.tables import Mutation, Tables, gather_all
from tidewire_storage.domain.blocks import Block, StoredBlock, TopicPartitionKey, holds_rollups
from tidewire_storage.ports import Exchange, PartitionFlush, ProgressMoved, Seal

_PRUNE_FLUSHES = 64
_TTL_SLACK_SECONDS = 2 * 86_400
"""Bytes outlive their tenant's retention by this: upkeep accounts for them first."""
_LEFT_TO_TTL_US = 3 * rows.DAY_US
"""Expired bytes that go by themselves within this are not deleted one by one."""
_MOST_TTL_SECONDS = 600_000_000

Retention = Callable[[TenantId, bool], float | None]
"""Seconds for which a tenant keeps readings, or with True rollups; None: for good."""


@dataclass(frozen=True, slots=True)
class Removal:
    """A block to be removed, or replaced by a smaller one of the same key."""

    block: StoredBlock
    replacement: Block | None = None
    left_to_ttl: bool = False
    """Its bytes need not go before they expire."""


@dataclass(slots=True)
class _Ledge:
    """What is remembered of a place for its next commit."""

    books: Books = field(default_factory=Books)
    window: deque[tuple[int, int, int]] = field(default_factory=deque)
    """(end offset, newest log time, segments) of the stored window entries, oldest first."""

    def passed(self, part: PartitionFlush) -> int | None:
        """Up to which end offset window entries may go; None: it is not worth the while yet."""
        oldest = part.log_time_us - int(WINDOW_SECONDS * 1e6)
        newer = sum(segments for _, _, segments in self.window)
        end, count = None, 0
        for end_offset, newest_us, segments in self.window:
            newer -= segments
            if newest_us >= oldest and newer < WINDOW_SEGMENTS:
                break
            end, count = end_offset, count + 1
        return end if count >= _PRUNE_FLUSHES else None

    def moved(self, part: PartitionFlush) -> None:
        """A flush was committed."""
        end = self.passed(part)
        while end is not None and self.window and self.window[0][0] <= end:
            self.window.popleft()
        if len(part.entries):
            self.window.append((part.next_offset, part.log_time_us, len(part.entries)))


class Writing:
    """Makes commits. On one loop."""

    def __init__(self, tables: Tables, heads: Heads, attempts: Attempts, retention: Retention) -> None:
        self._tables = tables
        self._heads = heads
        self._attempts = attempts
        self._retention = retention
        self._ledges: dict[TopicPartitionKey, _Ledge] = {}

    def window_loaded(self, place: TopicPartitionKey, window: Iterable[tuple[int, int, int]]) -> None:
        """The stored window entries of a place, as just read."""
        self._ledge(place).window = deque(window)

    async def flush(self, part: PartitionFlush, blocks: Sequence[Block]) -> None:
        """Commits a partition's flush. Raises ProgressMoved, Unavailable."""
        place, attempt = part.place, new_attempt()
        written = [(block, self._ttl(block.key.tenant)) for block in blocks]
        named = [
            rows.stored(block, attempt, now_us() + ttl * 1_000_000 if ttl else None) for block, ttl in written
        ]
        ledge = self._ledge(place)
        draft: Draft

        async def build(head: Head) -> Change:
            nonlocal draft, written
            if head.next_offset != part.expected_offset:
                raise ProgressMoved(place, part.expected_offset, head.next_offset)
            check_age(attempt)
            draft = Draft(self._tables, ledge.books.at(head.version), place)
            loading = draft.load(_keys_of_flush(draft, part, named))
            if written:
                await gather_all([loading, self._attempts.write(place, writer, attempt, written)])
                written = []
            else:
                await loading
            mutations = _add(draft, part, named)
            mutations += draft.mutations(head.version)
            mutations += _window_mutations(part, ledge.passed(part))
            return Change(part.next_offset, max(head.log_time_us, part.log_time_us), mutations)

        async with self._attempts.slot(place) as writer:
            head = await self._heads.commit(place, build)
        assert head is not None
        draft.committed(head.version)
        ledge.moved(part)

    async def remove(self, place: TopicPartitionKey, removals: Sequence[Removal]) -> int:
        """Commits removals of one place; blocks that are not there any more as they were found are passed over.

        Returns the readings removed.
        """
        attempt = new_attempt()
        ledge = self._ledge(place)
        written = [
            (item.replacement, _ttl_left(item.block)) for item in removals if item.replacement is not None
        ]
        removed = 0
        draft: Draft

        async def build(head: Head) -> Change | None:
            nonlocal draft, removed, written
            check_age(attempt)
            names = await gather_all(
                self._tables.row(NAMED, *rows.epoch_block_key(item.block)) for item in removals
            )
            there = [
                item
                for item, row in zip(removals, names, strict=True)
                if row is not None and row.attempt == rows.token_of(item.block).attempt
            ]
            if not there:
                return None
            draft = Draft(self._tables, ledge.books.at(head.version), place)
            await draft.load(_keys_of_removal(draft, there))
            if written:
                await self._attempts.write(place, writer, attempt, written)
                written = []
            mutations: list[Mutation] = []
            removed = sum(_remove(draft, item, attempt, mutations) for item in there)
            mutations += draft.mutations(head.version)
            return Change(head.next_offset, head.log_time_us, mutations)

        async with self._attempts.slot(place) as writer:
            committed = await self._heads.commit(place, build)
        if committed is None:
            return 0
        draft.committed(committed.version)
        return removed

    async def seal(self, seal: Seal) -> bool:
        """Commits a seal or merge. False: it is done already, or the blocks are not those of the seal any more."""
        place, attempt = seal.place, new_attempt()
        ledge = self._ledge(place)
        expires_us = [self._expires_us(seal, block) for block in seal.blocks]
        written = [
            (block, _ttl_until(expires)) for block, expires in zip(seal.blocks, expires_us, strict=True)
        ]
        named = [
            rows.stored(block, attempt, expires)
            for block, expires in zip(seal.blocks, expires_us, strict=True)
        ]
        known = {rows.epoch_block_key(block): block.token for block in (*seal.replaced, *seal.kept)}
        draft: Draft

        async def build(head: Head) -> Change | None:
            nonlocal draft, written
            check_age(attempt)
            found = await gather_all(
                reading.blocks_of_epoch(self._tables, place, epoch) for epoch in seal.epochs
            )
            if {rows.epoch_block_key(block): block.token for some in found for block in some} != known:
                return None
            draft = Draft(self._tables, ledge.books.at(head.version), place)
            await draft.load(_keys_of_seal(draft, seal, named))
            if not draft.seal_epochs(seal, head.version):
                return None
            if written:
                await self._attempts.write(place, writer, attempt, written)
                written = []
            mutations = _replace(draft, seal, named)
            mutations += draft.mutations(head.version)
            mutations.append(("last_seal", (place.incarnation, place.partition, head.version)))
            return Change(head.next_offset, head.log_time_us, mutations)

        async with self._attempts.slot(place) as writer:
            committed = await self._heads.commit(place, build)
        if committed is None:
            return False
        draft.committed(committed.version)
        return True

    async def exchange(self, exchange: Exchange) -> bool:
        """Commits an exchange. False: one of the blocks is not there any more as it was found."""
        place, attempt = exchange.place, new_attempt()
        ledge = self._ledge(place)
        written = [(block, self._ttl(block.key.tenant)) for block in exchange.blocks]
        named = [
            rows.stored(block, attempt, now_us() + ttl * 1_000_000 if ttl else None) for block, ttl in written
        ]
        draft: Draft

        async def build(head: Head) -> Change | None:
            nonlocal draft, written
            check_age(attempt)
            names = await gather_all(
                self._tables.row(NAMED, *rows.epoch_block_key(block)) for block in exchange.replaced
            )
            for block, row in zip(exchange.replaced, names, strict=True):
                if row is None or row.attempt != rows.token_of(block).attempt:
                    return None
            draft = Draft(self._tables, ledge.books.at(head.version), place)
            await draft.load(_keys_of_exchange(draft, exchange, named))
            if written:
                await self._attempts.write(place, writer, attempt, written)
                written = []
            for block in exchange.replaced:
                draft.shrink_epoch(block.key.epoch, 1, block.facts.readings)
            for made in exchange.blocks:
                draft.shrink_epoch(made.key.epoch, -1, -made.facts.readings)
            mutations = _replace(draft, exchange, named)
            mutations += draft.mutations(head.version)
            mutations.append(("last_seal", (place.incarnation, place.partition, head.version)))
            return Change(head.next_offset, head.log_time_us, mutations)

        async with self._attempts.slot(place) as writer:
            committed = await self._heads.commit(place, build)
        if committed is None:
            return False
        draft.committed(committed.version)
        return True

    def _ledge(self, place: TopicPartitionKey) -> _Ledge:
        return self._ledges.setdefault(place, _Ledge())

    def _ttl(self, tenant: TenantId, *, rollups: bool = False) -> int:
        seconds = self._retention(tenant, rollups)
        return 0 if seconds is None else min(int(seconds) + _TTL_SLACK_SECONDS, _MOST_TTL_SECONDS)

    def _expires_us(self, seal: Seal, block: Block) -> int | None:
        """When the bytes of a seal's block go by themselves; None: never.

        Readings with the last of those whose place they take, so that none goes early; rollups by their own retention.
        """
        if holds_rollups(block.key.level):
            ttl = self._ttl(block.key.tenant, rollups=True)
            return now_us() + ttl * 1_000_000 if ttl else None
        found = [rows.token_of(old).expires_us for old in seal.replaced if old.key.tenant == block.key.tenant]
        return None if None in found else max(expires for expires in found if expires is not None)


def _add(draft: Draft, part: PartitionFlush, blocks: Sequence[StoredBlock]) -> list[Mutation]:
    """Enters a flush into the counts; returns what names its blocks."""
    mutations: list[Mutation] = []
    for (tenant, hour_us), counts in part.ledger.items():
        draft.count(tenant, hour_us, counts)
    for span in part.spans:
        draft.extend_epoch(span)
    for block in blocks:
        token, facts = rows.token_of(block), block.facts
        draft.count(block.key.tenant, facts.hour_us, LedgerCounts(), token.length)
        draft.block_on_day(_day_key(draft, block), facts.min_time_us, facts.max_time_us, token.expires_us)
        mutations += rows.put(block)
    return mutations


def _window_mutations(part: PartitionFlush, passed: int | None) -> list[Mutation]:
    key = (part.place.incarnation, part.place.partition)
    made: list[Mutation] = []
    if len(part.entries):
        entries = part.entries.astype("<u8").tobytes()
        made.append(("dedup", (*key, part.next_offset, part.log_time_us, len(part.entries), entries)))
    if passed is not None:
        made.append(("drop_dedup", (*key, passed)))
    return made


def _ttl_left(block: StoredBlock) -> int:
    return _ttl_until(rows.token_of(block).expires_us)


def _ttl_until(expires_us: int | None) -> int:
    return 0 if expires_us is None else max(1, (expires_us - now_us()) // 1_000_000)


def _keys_of_flush(draft: Draft, part: PartitionFlush, blocks: Sequence[StoredBlock]) -> Iterable[Key]:
    for tenant, hour_us in {*part.ledger, *((block.key.tenant, block.facts.hour_us) for block in blocks)}:
        yield draft.ledger_key(tenant, hour_us)
        yield draft.usage_key(tenant)
    for span in part.spans:
        yield draft.epoch_key(span.epoch)
    for block in blocks:
        yield _day_key(draft, block)


def _keys_of_removal(draft: Draft, removals: Sequence[Removal]) -> Iterable[Key]:
    for item in removals:
        key, facts = item.block.key, item.block.facts
        yield draft.ledger_key(key.tenant, facts.hour_us)
        yield draft.usage_key(key.tenant)
        yield draft.epoch_key(key.epoch)
        yield _day_key(draft, item.block)
        if item.replacement is not None:
            yield _day_key(draft, rows.stored(item.replacement, b"", None))


def _keys_of_seal(draft: Draft, seal: Seal, blocks: Sequence[StoredBlock]) -> Iterable[Key]:
    for block in (*seal.replaced, *blocks):
        yield draft.ledger_key(block.key.tenant, block.facts.hour_us)
        yield draft.usage_key(block.key.tenant)
        yield _day_key(draft, block)
    for tenant, hour_us in seal.ledger:
        yield draft.ledger_key(tenant, hour_us)
        yield draft.usage_key(tenant)
    for epoch in seal.epochs:
        yield draft.epoch_key(epoch)


def _keys_of_exchange(draft: Draft, exchange: Exchange, blocks: Sequence[StoredBlock]) -> Iterable[Key]:
    for block in (*exchange.replaced, *blocks):
        yield draft.ledger_key(block.key.tenant, block.facts.hour_us)
        yield draft.usage_key(block.key.tenant)
        yield draft.epoch_key(block.key.epoch)
        yield _day_key(draft, block)
    for tenant, hour_us in exchange.ledger:
        yield draft.ledger_key(tenant, hour_us)
        yield draft.usage_key(tenant)


def _replace(draft: Draft, seal: Seal | Exchange, blocks: Sequence[StoredBlock]) -> list[Mutation]:
    """Enters a seal into the counts; returns what names its blocks, and what takes the others' names away."""
    mutations: list[Mutation] = []
    kept: set[tuple[object, ...]] = set()
    for (tenant, hour_us), counts in seal.ledger.items():
        draft.count(tenant, hour_us, counts)
    for block in blocks:  # before the others go, so that no day is empty meanwhile
        facts, token = block.facts, rows.token_of(block)
        draft.count(block.key.tenant, facts.hour_us, LedgerCounts(), token.length)
        draft.block_on_day(_day_key(draft, block), facts.min_time_us, facts.max_time_us, token.expires_us)
        mutations += rows.put(block)
        kept |= {rows.catalog_key(block), rows.epoch_block_key(block)}
    for block in seal.replaced:
        token = rows.token_of(block)
        draft.count(block.key.tenant, block.facts.hour_us, LedgerCounts(), -token.length)
        draft.block_off_day(_day_key(draft, block))
        for name, key in (
            ("drop_catalog", rows.catalog_key(block)),
            ("drop_epoch_block", rows.epoch_block_key(block)),
        ):
            if key not in kept:  # what is written and dropped by one commit would be gone
                mutations.append((name, key))
        mutations.append(("drop_bytes", rows.bytes_key(block.key, token.attempt)))
    return mutations


def _day_key(draft: Draft, block: StoredBlock) -> Key:
    facts = block.facts
    level = rows.level_of(facts.min_time_us, facts.max_time_us)
    return draft.day_key(block.key.tenant, rows.day_of(facts.hour_us), level)


def _remove(draft: Draft, item: Removal, attempt: bytes, mutations: list[Mutation]) -> int:
    """Takes a block out of the counts and out of the catalog. Returns the readings removed."""
    block, token = item.block, rows.token_of(item.block)
    facts, old_key = block.facts, rows.catalog_key(block)
    removed, length = facts.readings, token.length
    draft.block_off_day(_day_key(draft, block))
    if item.replacement is None:
        draft.shrink_epoch(block.key.epoch, 1, facts.readings)
        mutations.append(("drop_catalog", old_key))
        mutations.append(("drop_epoch_block", rows.epoch_block_key(block)))
    else:
        new = rows.stored(item.replacement, attempt, token.expires_us)
        removed -= new.facts.readings
        length -= rows.token_of(new).length
        draft.block_on_day(
            _day_key(draft, new), new.facts.min_time_us, new.facts.max_time_us, token.expires_us
        )
        if rows.catalog_key(new) != old_key:
            mutations.append(("drop_catalog", old_key))
        mutations += rows.put(new)
        draft.shrink_epoch(block.key.epoch, 0, removed)
    draft.count(block.key.tenant, facts.hour_us, LedgerCounts(purged=removed), -length)
    if not item.left_to_ttl:
        mutations.append(("drop_bytes", rows.bytes_key(block.key, token.attempt)))
    return removed


def goes_by_itself(block: StoredBlock) -> bool:
    """Whether expired bytes may be left to their TTL."""
    expires_us = rows.token_of(block).expires_us
    return expires_us is not None and expires_us < now_us() + _LEFT_TO_TTL_US
