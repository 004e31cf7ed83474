"""This server's own part of a bucket."""

import builtins
import threading
from functools import partial
from pathlib import Path

from app.core.config import Settings
from app.core.errors import ConfigurationError, FileMissing, InvalidInput, StorageUnavailable
from app.storage.google_cloud.addresses import split_address
from app.storage.google_cloud.buckets import Buckets, describe
from app.storage.google_cloud.client import TIMEOUT_SECONDS, answering, patiently
from app.storage.google_cloud.upload import Upload
from app.storage.incoming import IncomingFolder
from app.storage.keys import parts_of
from app.storage.protocol import Progress, StoredFile
from app.storage.workers import Workers, on_loop

# For connecting, and for the answer, which is a word: who waits for it may hold a lock.
_DELETE_SECONDS = (5.0, 5.0)


class GoogleHome(Buckets):
    """`gs://bucket/prefix`: what lies under it is written and deleted, everything else in any bucket only read."""

    def __init__(self, url: str, settings: Settings, incoming: IncomingFolder) -> None:
        super().__init__(settings)
        self._bucket, self._prefix = _split_home(url)
        self._incoming = incoming
        # Uploads take long; what others wait for must not wait for them.
        self._senders = Workers("google-uploads", 4)

    def url_of(self, key: str) -> str:
        return f"gs://{self._bucket}/{self._name_of(key)}"

    def owns(self, url: str) -> bool:
        try:
            bucket, name = split_address(url)
        except ValueError:
            return False
        return bucket == self._bucket and name.startswith(self._prefix) and name != self._prefix

    async def put(self, key: str, source: Path, progress: Progress | None = None) -> StoredFile:
        upload = Upload(
            partial(self.client.blob, self._bucket, self._name_of(key)), self._incoming, source, on_loop(progress)
        )
        return describe(await self._senders.run_to_its_end(upload.run, on_cancel=upload.stop))

    async def delete(self, url: str) -> bool:
        deleting = partial(self._delete, url, stopping := threading.Event())
        return self.owns(url) and await self.workers.run_to_its_end(deleting, on_cancel=stopping.set)

    async def list(self, folder: str) -> builtins.list[StoredFile]:
        return await self.workers.run(self._list, self._name_of(folder) + "/")

    async def list_names(self, folder: str) -> set[str]:
        return await self.workers.run(self._list_names, self._name_of(folder) + "/")

    async def aclose(self) -> None:
        self._senders.close()
        await super().aclose()

    def _name_of(self, key: str) -> str:
        return self._prefix + "/".join(parts_of(key))

    def _delete(self, url: str, stopping: threading.Event) -> bool:
        def check(_: Exception) -> None:
            if stopping.is_set():
                raise StorageUnavailable("The bucket takes too long to answer")

        _, name = split_address(url)
        try:
            with answering(self._bucket):
                delete = partial(self.client.blob(self._bucket, name).delete, timeout=_DELETE_SECONDS, retry=None)
                patiently()(delete, check)()
        except FileMissing:
            return False
        return True

    def _list(self, prefix: str) -> builtins.list[StoredFile]:
        with answering(self._bucket):
            found = self.client.get().list_blobs(
                self._bucket, prefix=prefix, timeout=TIMEOUT_SECONDS, retry=patiently()
            )
            return [describe(blob) for blob in found if not blob.name.endswith("/")]

    def _list_names(self, prefix: str) -> set[str]:
        with answering(self._bucket):
            found = self.client.get().list_blobs(
                self._bucket,
                prefix=prefix,
                delimiter="/",
                fields="items(name),prefixes,nextPageToken",
                timeout=TIMEOUT_SECONDS,
                retry=patiently(),
            )
            names = {blob.name for blob in found} | set(found.prefixes)
        return {name.removeprefix(prefix).rstrip("/") for name in names} - {""}


def _split_home(url: str) -> tuple[str, str]:
    """Return a bucket and what the names of its own objects begin with."""
    try:
        bucket, prefix = split_address(url.rstrip("/"))
        parts = parts_of(prefix) if prefix else []
    except (ValueError, InvalidInput):
        raise ConfigurationError(
            "STORAGE_URL must name a bucket and may name a folder in it: gs://bucket/folder"
        ) from None
    if "?" in url or "#" in url:
        raise ConfigurationError("STORAGE_URL must end with the folder in the bucket, without ? or #")
    return bucket, "".join(f"{part}/" for part in parts)
