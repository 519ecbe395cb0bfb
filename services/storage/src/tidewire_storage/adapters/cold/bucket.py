"""The cold tier in an S3 bucket, by obstore. Named by `cold_store_at`."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from tidewire_kit.buckets import HINT, bucket_options, why_of
from tidewire_storage.ports import ColdObject, ColdUnavailable

_THREADS = 8
_TIMEOUT_SECONDS = 30.0
_RETRY_SECONDS = 10.0


class BucketColdStore:
    """See ColdStore. Calls block threads of its own."""

    def __init__(self, bucket: str, prefix: str, environ: Mapping[str, str]) -> None:
        self.place = f"s3://{bucket}/{prefix}"
        self._prefix = f"{prefix}/" if prefix else ""
        options = bucket_options(
            environ, timeout_seconds=_TIMEOUT_SECONDS, retries=2, retry_seconds=_RETRY_SECONDS
        )
        self._store = S3Store(bucket, **options)
        self._threads = ThreadPoolExecutor(_THREADS, "storage-cold")

    async def put(self, name: str, data: bytes) -> None:
        """See ColdStore."""
        await self._asked(lambda: obstore.put(self._store, self._prefix + name, data, use_multipart=False))

    async def ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """See ColdStore. Neighbouring ranges are fetched at once."""
        if not ranges:
            return []

        def fetch() -> list[bytes] | None:
            try:
                found = obstore.get_ranges(
                    self._store,
                    self._prefix + name,
                    starts=[position for position, _ in ranges],
                    lengths=[length for _, length in ranges],
                )
            except FileNotFoundError:
                return None
            return [bytes(one) for one in found]

        return await self._asked(fetch)

    async def objects(self, prefix: str = "") -> list[ColdObject]:
        """See ColdStore."""

        def look() -> list[ColdObject]:
            found = [
                ColdObject(
                    str(meta["path"]).removeprefix(self._prefix),
                    int(meta["size"]),
                    int(meta["last_modified"].timestamp() * 1e6),
                )
                for some in obstore.list(self._store, self._prefix + prefix)
                for meta in some
            ]
            return sorted(found, key=lambda one: one.name)

        return await self._asked(look)

    async def remove(self, names: Collection[str]) -> None:
        """See ColdStore."""

        def remove() -> None:
            for name in names:
                try:
                    obstore.delete(self._store, self._prefix + name)
                except FileNotFoundError:
                    continue

        await self._asked(remove)

    async def close(self) -> None:
        """See ColdStore."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _asked[T](self, ask: Callable[[], T]) -> T:
        def run() -> T:
            try:
                return ask()
            except (BaseError, OSError) as error:
                raise ColdUnavailable(f"{self.place}: {why_of(error)}; {HINT}") from None

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)
