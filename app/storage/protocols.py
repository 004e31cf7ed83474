"""What every store of media can do."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

# Called on the event loop with the number of bytes that are stored since the last call, written or found there.
ProgressCallback = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is known of a stored file without reading it."""

    url: str  # as rows hold it: file:///… or gs://…
    size: int  # bytes
    modified: datetime  # with a zone
    version: str  # another one whenever the content is another one: what a strong ETag is made of


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """An address that anybody can read a file from for a while."""

    url: str
    expires_in_seconds: int


class OpenFile(Protocol):
    """An open file: its bytes are those of `stored`, or none, also where another file takes its name meanwhile."""

    @property
    def stored(self) -> StoredFile: ...

    def read(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` up to, not including, `stop`."""
        ...


class ReadableStore(Protocol):
    """Files that can be read. Each has a URL, which rows hold.

    Nothing here blocks the event loop but `open`, which is for other threads. What cannot be read, be it missing or
    outside of what may be touched, is `FileMissing`; what does not answer is `StorageUnavailable`.
    """

    async def stat(self, url: str) -> StoredFile:
        """Raises `FileMissing`."""
        ...

    def open_async(self, url: str) -> AbstractAsyncContextManager[OpenFile]:
        """Open a file for reading: `async with storage.open_async(url) as file`. Raises `FileMissing`."""
        ...

    def open_blocking(self, url: str) -> BinaryIO:
        """Open a file for reading and seeking, blocking. Raises `FileMissing`."""
        ...

    async def get_signed_url(self, url: str) -> SignedUrl | None:
        """Return an address that the file's home itself serves to a GET, or None where it serves none."""
        ...

    async def aclose(self) -> None: ...


class Store(ReadableStore, Protocol):
    """This server's own place of media. The key of a file is the part of its URL that is relative to the home."""

    def url_of(self, key: str) -> str:
        """Return the URL that a file of the home has under this key. Raises `InvalidInput` for what is no key."""
        ...

    def owns(self, url: str) -> bool:
        """Whether the file is this server's own, so that it may replace and delete it; it blocks for a moment."""
        ...

    async def put(self, key: str, source: Path, progress: ProgressCallback | None = None) -> StoredFile:
        """Store a local file, all of it or nothing; one that is there already with the same bytes stays.

        What an interrupted call has sent is not sent again. A source that was received is moved, any other copied.
        Raises `FileMissing` for the source, `Conflict` where it changes meanwhile, and `StorageFull`.
        """
        ...

    async def delete(self, url: str) -> bool:
        """Delete a file; False where there is none or where it is not the server's own."""
        ...

    async def list_files(self, folder: str) -> list[StoredFile]:
        """Return the files whose keys begin with `folder` and a slash, ordered by key."""
        ...

    async def list_names(self, folder: str) -> set[str]:
        """Return the names directly in a folder, of files and of folders."""
        ...
