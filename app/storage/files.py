"""Media in local folders: one that is this server's own, and those of imported libraries."""

import asyncio
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes, urlsplit

from app.core.errors import ConfigurationError, FileMissing
from app.storage.incoming import FOLDER, IncomingFolder, Receiver
from app.storage.libraries import Libraries
from app.storage.protocol import Link, Progress, StoredFile
from app.storage.workers import Workers

_CHUNK_BYTES = 256 * 1024


def path_of(url: str) -> Path:
    """Return the path that a `file:///` URL names. Raises `ConfigurationError` for one that names none."""
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ConfigurationError(f"{url} is no file:/// address of a folder")
    return Path(os.fsdecode(unquote_to_bytes(parts.path)))


class FileHome:
    """A folder of files, each under its key, and beside it the folders of imported libraries, for reading only."""

    def __init__(self, root: Path, libraries: Libraries) -> None:
        self._root = Path(os.path.abspath(root))
        self.libraries = libraries
        self._incoming = IncomingFolder(self._root / FOLDER)
        self._workers = Workers("files", 8)

    @property
    def incoming(self) -> Path:
        """The folder of what is still being written, on the file system of the rest."""
        return self._incoming.path

    def receive(self) -> Receiver:
        """Return a file that is still arriving."""
        return Receiver(self._incoming, self._workers)

    def url_of(self, key: str) -> str:
        return (self._root / key).as_uri()

    def owns(self, url: str) -> bool:
        try:
            return Path(os.path.abspath(path_of(url))).is_relative_to(self._root)
        except (ConfigurationError, ValueError):
            return False

    async def put(self, key: str, source: Path, progress: Progress | None = None) -> StoredFile:
        return await asyncio.to_thread(self._put, key, source, progress)

    async def stat(self, url: str) -> StoredFile:
        return await asyncio.to_thread(self._stat, url)

    async def read(self, url: str, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes]:
        file = await asyncio.to_thread(self.open, url)
        try:
            await asyncio.to_thread(file.seek, start)
            left = None if stop is None else stop - start
            while left is None or left > 0:
                size = _CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES)
                chunk = await asyncio.to_thread(file.read, size)
                if not chunk:
                    return
                left = None if left is None else left - len(chunk)
                yield chunk
        finally:
            file.close()

    def open(self, url: str) -> BinaryIO:
        try:
            return open(self._find(url), "rb")
        except OSError:
            raise FileMissing from None

    async def get_link(self, url: str) -> Link | None:
        return None

    async def delete(self, url: str) -> bool:
        return await asyncio.to_thread(self._delete, url)

    async def list(self, folder: str) -> list[StoredFile]:
        return await asyncio.to_thread(lambda: [self._stat(path.as_uri()) for path in self._walk(folder)])

    async def list_names(self, folder: str) -> set[str]:
        def names() -> set[str]:
            try:
                return set(os.listdir(self._root / folder))
            except OSError:
                return set()

        return await asyncio.to_thread(names)

    async def aclose(self) -> None:
        pass

    def _find(self, url: str) -> Path:
        """Return the real path of a file inside the home or a library. Raises `FileMissing`."""
        try:
            path = path_of(url).resolve(strict=True)
            roots = [root.resolve() for root in (self._root, *self.libraries.list())]
        except (ConfigurationError, OSError, ValueError, RuntimeError):
            raise FileMissing from None
        if not any(path.is_relative_to(root) for root in roots) or not path.is_file():
            raise FileMissing
        return path

    def _stat(self, url: str) -> StoredFile:
        try:
            found = os.stat(self._find(url))
        except OSError:
            raise FileMissing from None
        if not stat.S_ISREG(found.st_mode):
            raise FileMissing
        version = hashlib.sha256(f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}".encode()).hexdigest()[:24]
        return StoredFile(url, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC), version)

    def _put(self, key: str, source: Path, progress: Progress | None) -> StoredFile:
        target = self._root / key
        draft = self.incoming / secrets.token_hex(8)
        draft.parent.mkdir(parents=True, exist_ok=True)
        if source.parent == self.incoming:
            draft = source
        else:
            shutil.copyfile(source, draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft, target)
        if progress:
            progress(target.stat().st_size)
        return self._stat(target.as_uri())

    def _delete(self, url: str) -> bool:
        if not self.owns(url):
            return False
        try:
            self._find(url).unlink()
        except (FileMissing, FileNotFoundError):
            return False
        return True

    def _walk(self, folder: str) -> Iterator[Path]:
        yield from sorted(path for path in (self._root / folder).rglob("*") if path.is_file())
