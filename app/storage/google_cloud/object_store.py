"""Reads media in any bucket, and stores it in this server's own part of one."""

import builtins
import io
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from app.core.config import Settings
from app.core.errors import ConfigurationError, FileMissing, InvalidInput, StorageUnavailable
from app.core.thread_pool import ThreadPool, make_event_loop_callback
from app.storage.google_cloud.client import (
    TIMEOUT_SECONDS,
    GoogleClient,
    UrlSigner,
    make_retry_policy,
    split_object_url,
    translate_google_errors,
)
from app.storage.google_cloud.upload import ObjectUpload
from app.storage.incoming import IncomingFolder
from app.storage.keys import split_key
from app.storage.protocols import ProgressCallback, SignedUrl, StoredFile

if TYPE_CHECKING:
    from google.cloud.storage import Blob


class ObjectRangeReader(io.RawIOBase):
    """A seekable file over range requests; `io.BufferedReader` around it merges small reads."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._fetch = fetch
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError("A position before the beginning")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        stop = min(self._position + len(buffer), self._size)
        if self._position >= stop:
            return 0
        data = self._fetch(self._position, stop)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


_CHUNK_BYTES = 4 * 1024 * 1024  # one request each
_BUFFER_BYTES = 1024 * 1024


class BucketReader:
    """Reads any object in any bucket that the credentials may read."""

    def __init__(self, settings: Settings) -> None:
        self.client = GoogleClient()
        self.workers = ThreadPool("google", 16)
        self._signer = UrlSigner(self.client, self.workers, settings.signed_url_seconds)

    async def stat(self, url: str) -> StoredFile:
        return make_stored_object(await self.workers.run(self._load_blob, url))

    @asynccontextmanager
    async def open_async(self, url: str) -> AsyncIterator["OpenObject"]:
        yield OpenObject(await self.workers.run(self._load_blob, url), self.workers)

    def open_blocking(self, url: str) -> BinaryIO:
        blob = self._load_blob(url)
        return cast(
            BinaryIO, io.BufferedReader(ObjectRangeReader(blob.size, partial(_fetch_range, blob)), _BUFFER_BYTES)
        )

    async def get_signed_url(self, url: str) -> SignedUrl | None:
        _split_existing_url(url)
        return await self._signer.get_signed_url(url)

    async def aclose(self) -> None:
        self.workers.close()
        self.client.close()

    def _load_blob(self, url: str) -> "Blob":
        """Return an object with its metadata, pinned to its current generation."""
        bucket, name = _split_existing_url(url)
        with translate_google_errors(bucket):
            blob = self.client.make_blob(bucket, name)
            blob.reload(timeout=TIMEOUT_SECONDS, retry=make_retry_policy())
            return blob


class OpenObject:
    """An object opened for reading, pinned to its generation."""

    def __init__(self, blob: "Blob", workers: ThreadPool) -> None:
        self.stored = make_stored_object(blob)
        self._blob = blob
        self._workers = workers

    async def read(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        stop = self.stored.size if stop is None else min(stop, self.stored.size)
        while start < stop:
            chunk = await self._workers.run(_fetch_range, self._blob, start, min(stop, start + _CHUNK_BYTES))
            start += len(chunk)
            yield chunk


def make_stored_object(blob: "Blob") -> StoredFile:
    modified = blob.updated or blob.time_created or datetime.fromtimestamp(0, UTC)
    return StoredFile(f"gs://{blob.bucket.name}/{blob.name}", int(blob.size), modified, str(blob.generation))


def _fetch_range(blob: "Blob", start: int, stop: int) -> bytes:
    """Return a range of an object. Raises `FileMissing` where the object was replaced meanwhile."""
    with translate_google_errors(blob.bucket.name):
        data: bytes = blob.download_as_bytes(
            start=start,
            end=stop - 1,
            raw_download=True,  # ranges are of the stored, possibly compressed, bytes
            if_generation_match=blob.generation,
            checksum=None,  # it would be of the whole object
            timeout=TIMEOUT_SECONDS,
            retry=make_retry_policy(),
        )
    if not data:
        raise FileMissing
    return data


def _split_existing_url(url: str) -> tuple[str, str]:
    """Return the bucket and the object name of a gs:// URL. Raises `FileMissing` for any other."""
    try:
        bucket, name = split_object_url(url)
    except ValueError:
        raise FileMissing from None
    if not name:
        raise FileMissing
    return bucket, name


# To connect and to answer. Short, because the caller may hold a lock.
_DELETE_SECONDS = (5.0, 5.0)


class ObjectStore(BucketReader):
    """`gs://bucket/prefix`: objects below it are written and deleted, all others only read."""

    def __init__(self, url: str, settings: Settings, incoming: IncomingFolder) -> None:
        super().__init__(settings)
        self._bucket, self._prefix = _split_storage_url(url)
        self._incoming = incoming
        # Uploads take long, so they have threads of their own.
        self._senders = ThreadPool("google-uploads", 4)

    def url_of(self, key: str) -> str:
        return f"gs://{self._bucket}/{self._object_name(key)}"

    def owns(self, url: str) -> bool:
        try:
            bucket, name = split_object_url(url)
        except ValueError:
            return False
        return bucket == self._bucket and name.startswith(self._prefix) and name != self._prefix

    async def put(self, key: str, source: Path, progress: ProgressCallback | None = None) -> StoredFile:
        upload = ObjectUpload(
            partial(self.client.make_blob, self._bucket, self._object_name(key)),
            self._incoming,
            source,
            make_event_loop_callback(progress),
        )
        return make_stored_object(await self._senders.run_shielded(upload.run, on_cancel=upload.request_stop))

    async def delete(self, url: str) -> bool:
        deleting = partial(self._delete_object, url, stopping := threading.Event())
        return self.owns(url) and await self.workers.run_shielded(deleting, on_cancel=stopping.set)

    async def list_files(self, folder: str) -> builtins.list[StoredFile]:
        return await self.workers.run(self._list_objects, self._object_name(folder) + "/")

    async def list_names(self, folder: str) -> set[str]:
        return await self.workers.run(self._list_names, self._object_name(folder) + "/")

    async def aclose(self) -> None:
        self._senders.close()
        await super().aclose()

    def _object_name(self, key: str) -> str:
        return self._prefix + "/".join(split_key(key))

    def _delete_object(self, url: str, stopping: threading.Event) -> bool:
        def raise_if_stopping(_: Exception) -> None:
            if stopping.is_set():
                raise StorageUnavailable("The bucket takes too long to answer")

        _, name = split_object_url(url)
        try:
            with translate_google_errors(self._bucket):
                delete = partial(self.client.make_blob(self._bucket, name).delete, timeout=_DELETE_SECONDS, retry=None)
                make_retry_policy()(delete, raise_if_stopping)()
        except FileMissing:
            return False
        return True

    def _list_objects(self, prefix: str) -> builtins.list[StoredFile]:
        with translate_google_errors(self._bucket):
            return [make_stored_object(blob) for blob in self._request_listing(prefix) if not blob.name.endswith("/")]

    def _list_names(self, prefix: str) -> set[str]:
        """Return the names directly below a prefix: of objects, and of prefixes that end with a slash."""
        with translate_google_errors(self._bucket):
            listing = self._request_listing(prefix, delimiter="/", fields="items(name),prefixes,nextPageToken")
            names = {blob.name for blob in listing} | set(listing.prefixes)
        return {name.removeprefix(prefix).rstrip("/") for name in names} - {""}

    def _request_listing(self, prefix: str, **options: str) -> Any:
        client, retry = self.client.get_client(), make_retry_policy()
        return client.list_blobs(self._bucket, prefix=prefix, timeout=TIMEOUT_SECONDS, retry=retry, **options)


def _split_storage_url(url: str) -> tuple[str, str]:
    try:
        bucket, prefix = split_object_url(url.rstrip("/"))
        parts = split_key(prefix) if prefix else []
    except (ValueError, InvalidInput):
        raise ConfigurationError(
            "STORAGE_URL must name a bucket and may name a folder in it: gs://bucket/folder"
        ) from None
    if "?" in url or "#" in url:
        raise ConfigurationError("STORAGE_URL must end with the folder in the bucket, without ? or #")
    return bucket, "".join(f"{part}/" for part in parts)
