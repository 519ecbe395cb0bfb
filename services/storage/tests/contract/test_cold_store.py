"""What `ports.cold` promises, of a directory and, marked `servers`, of an S3 bucket."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tidewire_kit.errors import InvalidArgument
from tidewire_storage.adapters.cold import cold_store_at
from tidewire_storage.ports import ColdStore, ColdUnavailable

NAME = "tenant=0a/day=2024-02-29/p00000-00.parquet"
OTHER = "tenant=0b/day=2024-02-29/p00001-00.parquet"


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.servers)])
async def cold(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ColdStore]:
    if request.param == "directory":
        store = cold_store_at(str(tmp_path / "cold"), {})
    else:
        server = request.getfixturevalue("s3_server")
        bucket = f"cold-{secrets.token_hex(4)}"
        server.make_bucket(bucket)
        store = cold_store_at(f"s3://{bucket}/pre/fix", server.environ())
    yield store
    await store.close()


async def test_what_is_put_is_read_back_in_parts(cold: ColdStore) -> None:
    data = bytes(range(256)) * 1000
    await cold.put(NAME, data)
    assert await cold.ranges(NAME, [(0, 4), (255_000, 1_000), (7, 0 + 1)]) == [
        data[:4],
        data[255_000:256_000],
        data[7:8],
    ]
    assert await cold.ranges(NAME, [(0, len(data) + 1)]) == [data]
    assert await cold.ranges(NAME, []) == []


async def test_there_is_no_such_object(cold: ColdStore) -> None:
    await cold.put(OTHER, b"1")
    assert await cold.ranges(NAME, [(0, 1)]) is None


async def test_objects_are_listed_and_removed(cold: ColdStore) -> None:
    assert await cold.objects() == []
    await cold.put(OTHER, b"12")
    await cold.put(NAME, b"1")
    assert [(one.name, one.size) for one in await cold.objects()] == [(NAME, 1), (OTHER, 2)]
    assert [one.name for one in await cold.objects("tenant=0b/")] == [OTHER]
    assert all(one.modified_us > 1_600_000_000_000_000 for one in await cold.objects())
    await cold.remove([NAME, "tenant=0a/day=2024-02-29/p00000-01.parquet"])
    await cold.remove([NAME])
    assert [one.name for one in await cold.objects()] == [OTHER]
    await cold.put(NAME, b"again")
    assert await cold.ranges(NAME, [(0, 5)]) == [b"again"]


@pytest.mark.parametrize("text", ["s3://", "s3://key:secret@bucket/x", "gs://bucket", "relative/path"])
def test_a_wrong_url_names_the_setting(text: str) -> None:
    with pytest.raises(InvalidArgument, match="TIDEWIRE_STORAGE_COLD_URL") as caught:
        cold_store_at(text, {})
    assert "secret" not in str(caught.value)


async def test_a_directory_that_is_not_there_is_not_an_object_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for store in (cold_store_at(str(tmp_path / "unmounted"), {}), cold_store_at(str(tmp_path / "file"), {})):
        with pytest.raises(ColdUnavailable):
            await store.ranges(NAME, [(0, 1)])
        await store.close()


async def test_a_server_that_is_not_there_is_unavailable_and_says_what_to_check() -> None:
    environ = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "hush-hush",
    }
    store = cold_store_at("s3://bucket/x", environ)
    with pytest.raises(ColdUnavailable, match="AWS_ENDPOINT_URL") as caught:
        await store.ranges(NAME, [(0, 1)])
    assert "hush" not in str(caught.value)
    await store.close()
