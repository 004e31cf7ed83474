"""All stores of media as one: new files go to `storage_url`, and each URL is read from the store it names."""

import asyncio
import contextlib
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import BinaryIO

from app.core.config import Settings
from app.core.errors import ConfigurationError, FileMissing
from app.core.text import list_unicode_forms
from app.storage.file_system import path_from_url
from app.storage.google_cloud import BucketReader, ObjectStore
from app.storage.keys import audio_folder_key
from app.storage.local_store import LibraryFolders, LocalStore
from app.storage.protocols import OpenFile, ProgressCallback, ReadableStore, SignedUrl, Store, StoredFile


class Storage:
    """This server's media, and the files of imported libraries."""

    def __init__(self, own_store: Store, local_store: LocalStore, buckets: ReadableStore) -> None:
        self._own_store = own_store
        self._local_store = local_store
        self._buckets = buckets
        self.libraries = local_store.libraries
        self.incoming_path = local_store.incoming_folder.path
        self.receive_file = local_store.receive_file

    def url_of(self, key: str) -> str:
        return self._own_store.url_of(key)

    def owns(self, url: str) -> bool:
        return self._own_store.owns(url)

    def can_reach(self, url: str) -> bool:
        """Return whether a URL is in a bucket or a folder of this server: others may have more libraries. It blocks."""
        if not url.startswith("file:") or self.owns(url):
            return True
        try:
            path = path_from_url(url)
        except ValueError:
            return True
        return any(path.is_relative_to(folder) for folder in self.libraries.list_folders())

    def is_inside(self, folder: Path) -> bool:
        """Return whether the local store is inside a folder."""
        return self._own_store is self._local_store and self._local_store.is_inside(folder)

    async def put(self, key: str, source: Path, progress: ProgressCallback | None = None) -> StoredFile:
        return await self._own_store.put(key, source, progress)

    async def stat(self, url: str) -> StoredFile:
        return await self._store_of(url).stat(url)

    def open_async(self, url: str) -> AbstractAsyncContextManager[OpenFile]:
        return self._store_of(url).open_async(url)

    def open_blocking(self, url: str) -> BinaryIO:
        return self._store_of(url).open_blocking(url)

    async def get_signed_url(self, url: str) -> SignedUrl | None:
        return await self._store_of(url).get_signed_url(url)

    async def delete(self, url: str) -> bool:
        return await self._own_store.delete(url)

    async def list_files(self, folder: str) -> list[StoredFile]:
        return await self._own_store.list_files(folder)

    async def list_names(self, folder: str) -> set[str]:
        return await self._own_store.list_names(folder)

    async def aclose(self) -> None:
        await self._local_store.aclose()
        await self._buckets.aclose()

    def _store_of(self, url: str) -> ReadableStore:
        if url.startswith("file:"):
            return self._local_store
        if url.startswith("gs:"):
            return self._buckets
        raise FileMissing


def open_storage(settings: Settings) -> Storage:
    """Return the storage of the settings; connections are opened at first use.

    Raises `ConfigurationError`.
    """
    local = settings.data_dir.absolute() / "media"
    libraries = LibraryFolders(settings)
    url = settings.storage_url or local.as_uri()
    if url.startswith("file:"):
        files = LocalStore(_parse_storage_folder_url(url), libraries)
        _refuse_libraries_with_own_files(settings, files)
        return Storage(files, files, BucketReader(settings))
    if url.startswith("gs:"):
        files = LocalStore(local, libraries)
        object_store = ObjectStore(url, settings, files.incoming_folder)
        return Storage(object_store, files, object_store)
    raise ConfigurationError("STORAGE_URL must start with file:/// or gs://")


def _refuse_libraries_with_own_files(settings: Settings, local_store: LocalStore) -> None:
    for folder in settings.library_dirs:
        if local_store.is_inside(folder.absolute()):
            raise ConfigurationError(
                f"LIBRARY_DIRS must not name {folder}: this server's own files lie in it, move them with STORAGE_URL"
            )


def _parse_storage_folder_url(url: str) -> Path:
    try:
        return path_from_url(url.rstrip("/"))
    except ValueError as error:
        raise ConfigurationError(f"STORAGE_URL must name a folder as file:///folder does: it is {error}") from None


async def find_audio_file(storage: Storage, identifier: str) -> str:
    """Return the URL of a video's audio file, in the store or in an imported library. Raises `FileMissing`."""
    for file in await storage.list_files(audio_folder_key(identifier)):
        if file.url.endswith(".wav"):
            return file.url
    for folder in await asyncio.to_thread(storage.libraries.list_folders):
        for form in list_unicode_forms(identifier):
            url = (folder / "audios" / f"{form}.wav").as_uri()
            with contextlib.suppress(FileMissing):
                await storage.stat(url)
                return url
    raise FileMissing
