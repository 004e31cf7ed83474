"""Reads files in buckets."""

import io
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast

from app.core.config import Settings
from app.core.errors import FileMissing
from app.storage.google_cloud.addresses import split_address
from app.storage.google_cloud.client import TIMEOUT_SECONDS, GoogleClient, answering, patiently
from app.storage.google_cloud.links import Links
from app.storage.google_cloud.reader import RangeReader
from app.storage.protocol import Link, StoredFile
from app.storage.workers import Workers

if TYPE_CHECKING:
    from google.cloud.storage import Blob

_CHUNK_BYTES = 4 * 1024 * 1024  # one request each
_BUFFER_BYTES = 1024 * 1024


class Buckets:
    """Whatever file in whatever bucket the credentials may read."""

    def __init__(self, settings: Settings) -> None:
        self.client = GoogleClient()
        self.workers = Workers("google", 16)
        self._links = Links(self.client, settings.signed_url_seconds)

    async def stat(self, url: str) -> StoredFile:
        return describe(await self.workers.run(self._find, url))

    @asynccontextmanager
    async def opened(self, url: str) -> AsyncIterator["OpenBlob"]:
        yield OpenBlob(await self.workers.run(self._find, url), self.workers)

    def open(self, url: str) -> BinaryIO:
        blob = self._find(url)
        return cast(BinaryIO, io.BufferedReader(RangeReader(blob.size, partial(_fetch, blob)), _BUFFER_BYTES))

    async def get_link(self, url: str) -> Link | None:
        if (known := self._links.find(url)) is None:
            signed = await self.workers.run(self._sign, url)
            if signed is not None:
                self._links.keep(url, signed)
                known = self._links.find(url)
        return known

    async def aclose(self) -> None:
        self.workers.close()
        self.client.close()

    def _find(self, url: str) -> "Blob":
        """Return an object with what is known of it. Its bytes are those of this generation, or none."""
        bucket, name = _split(url)
        with answering(bucket):
            blob = self.client.blob(bucket, name)
            blob.reload(timeout=TIMEOUT_SECONDS, retry=patiently())
            return blob

    def _sign(self, url: str) -> tuple[str, float] | None:
        _split(url)
        return self._links.sign(url)


class OpenBlob:
    """One generation of an object."""

    def __init__(self, blob: "Blob", workers: Workers) -> None:
        self.stored = describe(blob)
        self._blob = blob
        self._workers = workers

    async def read(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        stop = self.stored.size if stop is None else min(stop, self.stored.size)
        while start < stop:
            chunk = await self._workers.run(_fetch, self._blob, start, min(stop, start + _CHUNK_BYTES))
            start += len(chunk)
            yield chunk


def describe(blob: "Blob") -> StoredFile:
    modified = blob.updated or blob.time_created or datetime.fromtimestamp(0, UTC)
    return StoredFile(f"gs://{blob.bucket.name}/{blob.name}", int(blob.size), modified, str(blob.generation))


def _fetch(blob: "Blob", start: int, stop: int) -> bytes:
    """Return a part of an object that begins before its end. Raises `FileMissing` where it was replaced meanwhile."""
    with answering(blob.bucket.name):
        data: bytes = blob.download_as_bytes(
            start=start,
            end=stop - 1,
            raw_download=True,  # what is stored compressed is sent as it is: a range of anything else means nothing
            if_generation_match=blob.generation,
            checksum=None,  # of the whole object, and this is a part
            timeout=TIMEOUT_SECONDS,
            retry=patiently(),
        )
    if not data:
        raise FileMissing
    return data


def _split(url: str) -> tuple[str, str]:
    try:
        bucket, name = split_address(url)
    except ValueError:
        raise FileMissing from None
    if not name:
        raise FileMissing
    return bucket, name
