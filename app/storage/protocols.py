"""The interface of a media store."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

# Called on the event loop with the number of bytes stored, or found stored, since the last call.
ProgressCallback = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Metadata of a stored file."""

    url: str  # as rows hold it: file:///… or gs://…
    size: int  # bytes
    modified: datetime  # with a zone
    version: str  # changes with the content, for strong ETags


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """A URL from which anyone can read a file until it expires."""

    url: str
    expires_in_seconds: int


class OpenFile(Protocol):
    """An open file: it reads the version in `stored` or fails, also after the file was replaced."""

    @property
    def stored(self) -> StoredFile: ...

    def read(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` up to, not including, `stop`."""


class ReadableStore(Protocol):
    """Files that can be read by the URLs in rows.

    Only `open_blocking` blocks; call it in a thread. A file that is missing or forbidden raises `FileMissing`, a store
    that does not answer `StorageUnavailable`.
    """

    async def stat(self, url: str) -> StoredFile:
        """Return size, time and version. Raises `FileMissing`."""

    def open_async(self, url: str) -> AbstractAsyncContextManager[OpenFile]:
        """Open a file for reading: `async with storage.open_async(url) as file`. Raises `FileMissing`."""

    def open_blocking(self, url: str) -> BinaryIO:
        """Open a file for reading and seeking, blocking. Raises `FileMissing`."""

    async def get_signed_url(self, url: str) -> SignedUrl | None:
        """Return a URL from which the bucket itself serves the file, or None for local files."""

    async def aclose(self) -> None: ...


class Store(ReadableStore, Protocol):
    """The store of this server's own media. A key is a URL relative to the store."""

    def url_of(self, key: str) -> str:
        """Return the URL of a key. Raises `InvalidInput` for an invalid key."""

    def owns(self, url: str) -> bool:
        """Return whether this server may replace and delete the file. It blocks."""

    async def put(self, key: str, source: Path, progress: ProgressCallback | None = None) -> StoredFile:
        """Store a local file atomically; a stored file with the same bytes is kept.

        What an interrupted call has sent is not sent again. A source that was received is moved, any other copied.
        Raises `FileMissing` for the source, `Conflict` where it changes meanwhile, and `StorageFull`.
        """

    async def delete(self, url: str) -> bool:
        """Delete a file; False for one that is missing or not this server's own."""

    async def list_files(self, folder: str) -> list[StoredFile]:
        """Return the files whose keys begin with `folder` and a slash, ordered by key."""

    async def list_names(self, folder: str) -> set[str]:
        """Return the names of the files and folders directly in a folder."""
