"""Media in local folders: the server's own, and those of imported libraries."""

import contextlib
import hashlib
import os
import stat
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

from app.core.config import Settings
from app.core.errors import FileMissing, StorageUnavailable
from app.core.private_files import open_private_file, prepare_data_folder
from app.core.thread_pool import ThreadPool, make_event_loop_callback
from app.storage.file_system import (
    is_inside_folder,
    open_file_below,
    open_folder_below,
    parts_below,
    path_from_url,
    remove_file_below,
    translate_read_errors,
)
from app.storage.folder_upload import FolderUpload
from app.storage.incoming import INCOMING_FOLDER, IncomingFile, IncomingFolder
from app.storage.keys import split_key
from app.storage.protocols import ProgressCallback, SignedUrl, StoredFile


class LibraryFolders:
    """The folders of imported libraries: those of LIBRARY_DIRS, and those that imports registered in DATA_DIR."""

    def __init__(self, settings: Settings) -> None:
        self._configured = tuple(Path(os.path.abspath(folder)) for folder in settings.library_dirs)
        self._settings = settings
        self._registered_path = settings.data_dir / "libraries"
        self._last_read: tuple[tuple[int, int], tuple[Path, ...]] | None = None

    def list_folders(self) -> tuple[Path, ...]:
        """Return the folders, with those that imports registered meanwhile. It blocks."""
        try:
            status = os.stat(self._registered_path)
            seen = (status.st_mtime_ns, status.st_size)
            if self._last_read is None or self._last_read[0] != seen:
                self._last_read = seen, _parse_registered_folders(self._registered_path.read_bytes())
            noted = self._last_read[1]
        except OSError:
            noted = ()
        return self._configured + noted

    def add_folder(self, folder: Path) -> None:
        """Register a folder for reading. Raises `StorageUnavailable`."""
        folder = Path(os.path.abspath(folder))
        if folder in self.list_folders():
            return
        try:
            prepare_data_folder(self._settings)
            with open(self._registered_path, "ab", opener=open_private_file) as notes:
                notes.write(os.fsencode(folder) + b"\0")
                notes.flush()
                os.fsync(notes.fileno())
        except OSError as error:
            raise StorageUnavailable(f"The folder of an import cannot be noted in DATA_DIR: {error}") from None


def _parse_registered_folders(content: bytes) -> tuple[Path, ...]:
    # The last path may be cut off and is ignored.
    return tuple(Path(os.fsdecode(path)) for path in content.split(b"\0")[:-1] if os.path.isabs(path))


T = TypeVar("T")

READ_CHUNK_BYTES = 256 * 1024
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


class LocalFileReader:
    """A file that is opened and read in threads, and closed once none of them uses it.

    `buffer`, of `READ_CHUNK_BYTES`, is shared by all readers of an event loop.
    """

    stored: StoredFile

    def __init__(self, url: str, open_file: Callable[[str], int], workers: ThreadPool, buffer: memoryview) -> None:
        self._url = url
        self._open_file = open_file
        self._workers = workers
        self._buffer = buffer
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._users = 0
        self._is_closed = False

    async def __aenter__(self) -> Self:
        try:
            self.stored = await self._workers.run(self._call_while_open, self._open_and_describe)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        self._close()

    async def read(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        stop = self.stored.size if stop is None else stop
        while start < stop:
            size = min(stop - start, READ_CHUNK_BYTES)
            chunk = self._read_cached_bytes(size, start)
            if chunk is None:
                chunk = await self._workers.run(self._call_while_open, self._read_bytes_at, size, start)
            if not chunk:
                return
            start += len(chunk)
            yield chunk

    def _open_and_describe(self) -> StoredFile:
        self._descriptor = self._open_file(self._url)
        return make_stored_file(self._url, os.fstat(self._descriptor))

    def _read_bytes_at(self, size: int, start: int) -> bytes:
        if self._descriptor is None:
            raise FileMissing
        with translate_read_errors():
            return os.pread(self._descriptor, size, start)

    def _read_cached_bytes(self, size: int, start: int) -> bytes | None:
        """Return bytes that are in the page cache, or None: several times as fast as reading in a thread."""
        if _NOWAIT is None or self._descriptor is None:
            return None
        try:
            count = os.preadv(self._descriptor, [self._buffer[:size]], start, _NOWAIT)
        except OSError:  # EAGAIN, or a file system without RWF_NOWAIT
            return None
        return bytes(self._buffer[:count])

    def _call_while_open(self, call: Callable[..., T], *args: object) -> T:
        """Call a function that uses the file, which stays open until it returns. Raises `FileMissing` once closed."""
        with self._lock:
            if self._is_closed:
                raise FileMissing
            self._users += 1
        try:
            return call(*args)
        finally:
            with self._lock:
                self._users -= 1
                if self._is_closed and not self._users:
                    self._close_file_descriptor()

    def _close(self) -> None:
        with self._lock:
            self._is_closed = True
            if not self._users:
                self._close_file_descriptor()

    def _close_file_descriptor(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def make_stored_file(url: str, status: os.stat_result) -> StoredFile:
    version = hashlib.sha256(f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}".encode()).hexdigest()[:24]
    return StoredFile(url, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC), version)


class LocalStore:
    """A folder of files by key, and the folders of imported libraries, which are only read."""

    def __init__(self, root: Path, libraries: LibraryFolders) -> None:
        self._root = Path(os.path.abspath(root))
        self.libraries = libraries
        self.incoming_folder = IncomingFolder(self._root / INCOMING_FOLDER)
        self._workers = ThreadPool("files", 8)
        self._buffer = memoryview(bytearray(READ_CHUNK_BYTES))
        # Copies take long, so they have threads of their own.
        self._copiers = ThreadPool("copies", 4)

    def receive_file(self) -> IncomingFile:
        """Receive an upload: `async with store.receive_file() as incoming: await incoming.write(chunk)`."""
        return IncomingFile(self.incoming_folder, self._workers)

    def url_of(self, key: str) -> str:
        return self._root.joinpath(*split_key(key)).as_uri()

    def is_inside(self, folder: Path) -> bool:
        return is_inside_folder(self._root, folder)

    def owns(self, url: str) -> bool:
        return self._split_own_url(url) is not None

    async def put(self, key: str, source: Path, progress: ProgressCallback | None = None) -> StoredFile:
        copying = FolderUpload(self._root, self.incoming_folder, key, source, make_event_loop_callback(progress))
        await self._copiers.run_shielded(copying.run, on_cancel=copying.request_stop)
        return await self.stat(self.url_of(key))

    async def stat(self, url: str) -> StoredFile:
        async with self.open_async(url) as file:
            return file.stored

    def open_async(self, url: str) -> LocalFileReader:
        return LocalFileReader(url, self._open_descriptor, self._workers, self._buffer)

    def open_blocking(self, url: str) -> BinaryIO:
        return os.fdopen(self._open_descriptor(url), "rb")

    async def get_signed_url(self, url: str) -> SignedUrl | None:
        return None

    async def delete(self, url: str) -> bool:
        return await self._workers.run_shielded(partial(self._delete_file, url))

    async def list_files(self, folder: str) -> list[StoredFile]:
        files = await self._workers.run(_collect_or_empty, self._walk_files(split_key(folder)))
        return sorted(files, key=lambda file: file.url)

    async def list_names(self, folder: str) -> set[str]:
        return set(await self._workers.run(_collect_or_empty, self._iterate_names(split_key(folder))))

    async def aclose(self) -> None:
        self._workers.close()
        self._copiers.close()

    def _open_descriptor(self, url: str) -> int:
        try:
            path = path_from_url(url)
        except ValueError:
            raise FileMissing from None
        folders = (self._root, *self.libraries.list_folders())
        with contextlib.suppress(OSError, FileMissing):
            return _open_without_links(path, folders)
        with translate_read_errors():
            return self._open_through_links(path, folders)

    def _open_through_links(self, path: Path, folders: Sequence[Path]) -> int:
        """Open a file behind symbolic links that lead to one of the folders."""
        real = Path(os.path.realpath(path, strict=True))
        if not real.is_relative_to(os.path.realpath(self.incoming_folder.path)):
            for folder in folders:
                root = Path(os.path.realpath(folder))
                if names := parts_below(root, real):
                    return open_file_below(root, names)
        raise FileMissing

    def _split_own_url(self, url: str) -> tuple[str, ...] | None:
        """Return the path of an own file below the store, or None for a file of a library or outside."""
        try:
            path = path_from_url(url)
        except ValueError:
            return None
        parts = parts_below(self._root, path)
        # Files of a library stay the user's, also where the library and the store share a folder.
        if not parts or any(
            is_inside_folder(path, folder) for folder in (self.incoming_folder.path, *self.libraries.list_folders())
        ):
            return None
        return parts

    def _delete_file(self, url: str) -> bool:
        parts = self._split_own_url(url)
        if parts is None:
            return False
        try:
            with translate_read_errors(action="deleted"):
                return remove_file_below(self._root, parts)
        except FileMissing:
            return False

    def _walk_files(self, folder: Sequence[str]) -> Iterator[StoredFile]:
        with translate_read_errors(), open_folder_below(self._root, folder) as top:
            for path, _, names, inner in os.fwalk(".", onerror=_raise_unless_missing, dir_fd=top):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        status = os.lstat(name, dir_fd=inner)
                        if stat.S_ISREG(status.st_mode):
                            yield make_stored_file(self._root.joinpath(*folder, path, name).as_uri(), status)

    def _iterate_names(self, folder: Sequence[str]) -> Iterator[str]:
        with translate_read_errors(), open_folder_below(self._root, folder) as top:
            yield from os.listdir(top)


def _collect_or_empty(items: Iterator[T]) -> Sequence[T]:
    """Return all items, or none where the folder does not exist."""
    collected: list[T] = []
    with contextlib.suppress(FileMissing):
        collected.extend(items)
    return collected


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _open_without_links(path: Path, folders: Sequence[Path]) -> int:
    """Open a file whose path has no symbolic link in it: the fast and usual case."""
    if INCOMING_FOLDER not in path.parts:
        for folder in folders:
            if names := parts_below(folder, path):
                return open_file_below(folder, names)
    raise FileMissing
