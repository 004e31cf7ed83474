"""Media in local folders: one that is this server's own, and those of imported libraries."""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from app.core.errors import FileMissing
from app.storage.copying import Copying
from app.storage.folders import lies_in, names_below, open_file, open_folder, path_of, remove_file
from app.storage.incoming import FOLDER, IncomingFolder, Receiver
from app.storage.keys import parts_of
from app.storage.libraries import Libraries
from app.storage.os_errors import reading
from app.storage.protocol import Link, Progress, StoredFile
from app.storage.reader import CHUNK_BYTES, FileReader, describe
from app.storage.workers import Workers, on_loop

T = TypeVar("T")


class FileHome:
    """A folder of files, each under its key, and beside it the folders of imported libraries, for reading only."""

    def __init__(self, root: Path, libraries: Libraries) -> None:
        self._root = Path(os.path.abspath(root))
        self.libraries = libraries
        self.incoming_folder = IncomingFolder(self._root / FOLDER)
        self._workers = Workers("files", 8)
        self._buffer = memoryview(bytearray(CHUNK_BYTES))
        # Copies take long; what others wait for must not wait for them.
        self._copiers = Workers("copies", 4)

    @property
    def incoming(self) -> Path:
        """The folder of what is still being written, on the file system of the rest."""
        return self.incoming_folder.path

    def receive(self) -> Receiver:
        """Return a file that is still arriving."""
        return Receiver(self.incoming_folder, self._workers)

    def url_of(self, key: str) -> str:
        return self._root.joinpath(*parts_of(key)).as_uri()

    def lies_in(self, folder: Path) -> bool:
        """Whether this home is the folder, or is somewhere in it."""
        return lies_in(self._root, folder)

    def owns(self, url: str) -> bool:
        return self._own_parts(url) is not None

    async def put(self, key: str, source: Path, progress: Progress | None = None) -> StoredFile:
        copying = Copying(self._root, self.incoming_folder, key, source, on_loop(progress))
        await self._copiers.run_to_its_end(copying.run, on_cancel=copying.stop)
        return await self.stat(self.url_of(key))

    async def stat(self, url: str) -> StoredFile:
        async with self.opened(url) as file:
            return file.stored

    def opened(self, url: str) -> FileReader:
        return FileReader(url, self._open, self._workers, self._buffer)

    def open(self, url: str) -> BinaryIO:
        return os.fdopen(self._open(url), "rb")

    async def get_link(self, url: str) -> Link | None:
        return None

    async def delete(self, url: str) -> bool:
        return await self._workers.run_to_its_end(partial(self._delete, url))

    async def list(self, folder: str) -> list[StoredFile]:
        return sorted(await self._workers.run(_collect, self._walk(parts_of(folder))), key=lambda file: file.url)

    async def list_names(self, folder: str) -> set[str]:
        return set(await self._workers.run(_collect, self._names_in(parts_of(folder))))

    async def aclose(self) -> None:
        self._workers.close()
        self._copiers.close()

    def _open(self, url: str) -> int:
        """Open a file of the home or of a library. Raises `FileMissing`."""
        try:
            path = path_of(url)
        except ValueError:
            raise FileMissing from None
        folders = (self._root, *self.libraries.list())
        with contextlib.suppress(OSError, FileMissing):
            return _open_plainly(path, folders)
        with reading():
            return self._open_through_links(path, folders)

    def _open_through_links(self, path: Path, folders: Sequence[Path]) -> int:
        """Open what may be reached through a symbolic link, where it lies in one of the folders all the same."""
        real = Path(os.path.realpath(path, strict=True))
        if not real.is_relative_to(os.path.realpath(self.incoming)):
            for folder in folders:
                root = Path(os.path.realpath(folder))
                if names := names_below(root, real):
                    return open_file(root, names)
        raise FileMissing

    def _own_parts(self, url: str) -> tuple[str, ...] | None:
        """Return the names that lead from the home to a file; None where it is, or may be, somebody else's."""
        try:
            path = path_of(url)
        except ValueError:
            return None
        parts = names_below(self._root, path)
        # What an import found stays the user's, also where the library and the home share a folder.
        if not parts or any(lies_in(path, folder) for folder in (self.incoming, *self.libraries.list())):
            return None
        return parts

    def _delete(self, url: str) -> bool:
        parts = self._own_parts(url)
        if parts is None:
            return False
        try:
            with reading(action="deleted"):
                return remove_file(self._root, parts)
        except FileMissing:
            return False

    def _walk(self, folder: Sequence[str]) -> Iterator[StoredFile]:
        with reading(), open_folder(self._root, folder) as top:
            for path, _, names, inner in os.fwalk(".", onerror=_unless_gone, dir_fd=top):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        status = os.lstat(name, dir_fd=inner)
                        if stat.S_ISREG(status.st_mode):
                            yield describe(self._root.joinpath(*folder, path, name).as_uri(), status)

    def _names_in(self, folder: Sequence[str]) -> Iterator[str]:
        with reading(), open_folder(self._root, folder) as top:
            yield from os.listdir(top)


def _collect(found: Iterator[T]) -> Sequence[T]:
    """Finish an iteration; a folder that is not there holds nothing."""
    collected: list[T] = []
    with contextlib.suppress(FileMissing):
        collected.extend(found)
    return collected


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _open_plainly(path: Path, folders: Sequence[Path]) -> int:
    """Open a file by the very names of its path, no link among them: where that works, little has to be looked at."""
    if FOLDER not in path.parts:
        for folder in folders:
            if names := names_below(folder, path):
                return open_file(folder, names)
    raise FileMissing
