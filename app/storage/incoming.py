"""The folder of incomplete files: uploads being received, and drafts of copies.

Each is locked while it is written. An upload without a lock is garbage; a draft without one belongs to an interrupted
copy, which resumes there.
"""

import contextlib
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from app.core.errors import StorageUnavailable
from app.core.thread_pool import ThreadPool
from app.storage.file_system import (
    check_free_space,
    is_open_file_at,
    translate_write_errors,
    try_file_lock,
    wait_for_file_lock,
)

INCOMING_FOLDER = ".incoming"
_UPLOAD = "upload-"
_DRAFT = "draft-"
# An upload is locked at once when it is made; an interrupted import may be started again days later.
_KEPT_SECONDS = {_UPLOAD: 60.0, _DRAFT: 7 * 86400.0}
_SWEEP_SECONDS = 600.0
_NEW = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class IncomingFile:
    """An upload being received: it is at `path` until `put` moves it, or else removed at the end of the block."""

    def __init__(self, folder: "IncomingFolder", workers: ThreadPool) -> None:
        self.path = folder.path / f"{_UPLOAD}{secrets.token_hex(16)}"
        self.size = 0  # bytes written
        self._folder = folder
        self._workers = workers
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._is_closed = False

    async def __aenter__(self) -> "IncomingFile":
        try:
            await self._workers.run(self._open_file)
        except BaseException:
            self._workers.submit(self._close_and_remove)
            raise
        return self

    async def write(self, data: bytes) -> None:
        await self._workers.run(self._write_bytes, data)

    async def check_free_space(self, needed_bytes: int) -> None:
        await self._workers.run(check_free_space, self._folder.path, needed_bytes, "the video")

    async def __aexit__(self, *error: object) -> None:
        await self._workers.run_shielded(self._close_and_remove)

    def _open_file(self) -> None:
        with self._lock, translate_write_errors():
            if not self._is_closed:
                self._folder.make_folder_and_remove_old_files()
                self._descriptor = os.open(self.path, _NEW | os.O_EXCL, 0o666)
                try_file_lock(self._descriptor)

    def _write_bytes(self, data: bytes) -> None:
        with self._lock, translate_write_errors():
            if self._descriptor is None:
                raise ValueError("The file is closed")
            left = memoryview(data)
            while left:
                left = left[os.write(self._descriptor, left) :]
            self.size += len(data)

    def _close_and_remove(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._descriptor is not None:
                with contextlib.suppress(OSError):
                    if is_open_file_at(self._descriptor, self.path):
                        self.path.unlink()
                os.close(self._descriptor)
                self._descriptor = None


class IncomingFolder:
    """The folder of incomplete files; those that are old and unlocked are removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._swept_at = float("-inf")

    @contextlib.contextmanager
    def open_draft(self, key: str, source: Path, stopping: threading.Event) -> Iterator[tuple[int, Path]]:
        """Open and lock the draft of a copy, with what an interrupted copy wrote; yield its descriptor and path."""
        self.make_folder_and_remove_old_files()
        identity = f"{key}\0{os.path.abspath(source)}".encode("utf-8", "surrogateescape")
        path = self.path / f"{_DRAFT}{hashlib.sha256(identity).hexdigest()[:32]}"
        while True:
            descriptor = os.open(path, _NEW, 0o666)
            try:
                wait_for_file_lock(descriptor, stopping)
                if is_open_file_at(descriptor, path):
                    yield descriptor, path
                    return
            finally:
                os.close(descriptor)

    def make_folder_and_remove_old_files(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        if self.path.is_symlink():
            raise StorageUnavailable("The folder of arriving files is a symbolic link")
        if time.monotonic() - self._swept_at > _SWEEP_SECONDS:
            self._swept_at = time.monotonic()
            self._remove_old_files()

    def _remove_old_files(self) -> None:
        with os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if _is_expired_incoming_file(entry):
                        _remove_unless_locked(entry.path)


def _is_expired_incoming_file(entry: os.DirEntry[str]) -> bool:
    if not entry.is_file(follow_symlinks=False):
        return False
    age = time.time() - entry.stat(follow_symlinks=False).st_mtime
    return any(entry.name.startswith(kind) and age > kept_seconds for kind, kept_seconds in _KEPT_SECONDS.items())


def _remove_unless_locked(path: str) -> None:
    descriptor = os.open(path, _NEW & ~os.O_CREAT)
    try:
        if try_file_lock(descriptor) and is_open_file_at(descriptor, path):
            os.unlink(path)
    finally:
        os.close(descriptor)
