"""The bytes of blocks that were found, or what has become of them since. On a thread with its connection."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from tidewire_storage.adapters.embedded import reading
from tidewire_storage.adapters.embedded.files import read_pieces
from tidewire_storage.domain.block_header import BlockDamaged
from tidewire_storage.domain.blocks import StoredBlock
from tidewire_storage.ports import RangesOf


def read_blocks(
    connection: sqlite3.Connection, directory: Path, blocks: Sequence[StoredBlock]
) -> list[bytes | None]:
    """The bytes of blocks, in order; None: removed since they were found. BlockDamaged: they should be there."""
    tokens = [block.token for block in blocks]
    found: dict[int, bytes] = {}
    asked = {block.token.block_id: block for block in blocks if isinstance(block.token, reading.Token)}
    wanted = {token.block_id: token for token in tokens if isinstance(token, reading.Token)}
    for moved in (False, True):
        by_file: dict[int, list[reading.Token]] = {}
        for token in wanted.values():
            by_file.setdefault(token.file_id, []).append(token)
        missing: list[int] = []
        for file_id, some in by_file.items():
            try:
                pieces = read_pieces(directory, file_id, [(t.position, t.length) for t in some])
            except FileNotFoundError:
                missing += [token.block_id for token in some]
                continue
            for token, data in zip(some, pieces, strict=True):
                if len(data) < token.length:  # cut off, as its row was removed meanwhile
                    missing.append(token.block_id)
                else:
                    found[token.block_id] = data
        wanted = reading.where_now(connection, [asked[block_id] for block_id in missing])
        if wanted and moved:
            file_id = next(iter(wanted.values())).file_id
            raise BlockDamaged(f"file {file_id:010d}.blk is missing or cut short")
        if not wanted:
            break
    return [found.get(token.block_id) if isinstance(token, reading.Token) else None for token in tokens]


def read_ranges(directory: Path, asked: Sequence[RangesOf]) -> list[list[bytes] | None]:
    """Parts of blocks, in order; None: removed or rewritten since they were found."""
    found: list[list[bytes] | None] = []
    for one in asked:
        token = one.block.token
        assert isinstance(token, reading.Token)
        places = [(token.position + at, length) for at, length in one.ranges]
        try:
            pieces = read_pieces(directory, token.file_id, places)
        except FileNotFoundError:
            found.append(None)  # rewritten since: whoever asks finds it anew, at its new place
            continue
        whole = all(len(data) == length for data, (_, length) in zip(pieces, one.ranges, strict=True))
        found.append(pieces if whole else None)
    return found
