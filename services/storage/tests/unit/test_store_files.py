"""A catalog that this software cannot use is named at the start, with what to do, and left as it is."""

import sqlite3
from pathlib import Path

import pytest

from tidewire_kit.errors import FailedPrecondition
from tidewire_storage.adapters.embedded import EmbeddedStore


async def refused(directory: Path) -> FailedPrecondition:
    store = EmbeddedStore(directory)
    try:
        with pytest.raises(FailedPrecondition) as caught:
            await store.open()
    finally:
        await store.close()
    assert str(directory) in caught.value.message
    return caught.value


async def test_a_catalog_of_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    await store.open()
    await store.close()
    connection = sqlite3.connect(tmp_path / "catalog.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    error = await refused(tmp_path)
    assert error.reason == "FORMAT_NEWER"
    assert "format 99" in error.message
    connection = sqlite3.connect(tmp_path / "catalog.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (99,)
    connection.close()


async def test_a_damaged_catalog_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"this is no database" * 1_000)
    error = await refused(tmp_path)
    assert error.reason == "CATALOG_DAMAGED"
    assert "backup" in error.message
    assert (tmp_path / "catalog.db").read_bytes().startswith(b"this is no database")


async def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "storage").write_text("in the way")
    error = await refused(tmp_path / "storage")
    assert error.reason == "DATA_DIR_NOT_WRITABLE"
