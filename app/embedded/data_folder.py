"""The data folder of an embedded server: which process holds it, its address and its password."""

import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from app.core.private_files import open_private_file


class EmbeddedError(Exception):
    """An embedded server cannot start; the message is one sentence to be shown as it is."""


class PortTaken(EmbeddedError):
    """Another process listens on the port."""


class FolderTaken(EmbeddedError):
    """Another process holds the data folder."""


def read_or_create_password(path: Path) -> str:
    """Return the password in a file; write a new one where it is missing or not private. Raises `OSError`."""
    if (password := _read_private_password(path)) is None:
        write_private_file(path, password := secrets.token_hex(32))
    return password


def _read_private_password(path: Path) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    with open(descriptor, encoding="ascii", errors="replace") as file:
        status = os.fstat(descriptor)
        owners = {os.geteuid(), path.parent.stat().st_uid} if os.geteuid() == 0 else {os.geteuid()}
        if hasattr(os, "fchmod") and (status.st_uid not in owners or status.st_mode & 0o077):
            return None
        text = file.read(200)
    return text if len(text) >= 32 and text.isalnum() else None


def make_private_folder(path: Path) -> None:
    """Make a folder, where there is none, that only the owner of the one around it can look into."""
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid)


def write_private_file(path: Path, text: str) -> None:
    """Write a file atomically that only the owner of its folder can read."""
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            if os.geteuid() == 0:
                folder = path.parent.stat()
                os.chown(descriptor, folder.st_uid, folder.st_gid)
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)


if sys.platform != "win32":  # Windows shall come as far as the sentence on missing wheels
    import fcntl

_POLL_SECONDS = 0.05
_ORPHANS_SECONDS = 60.0  # for the server of a killed owner, which ends by itself


class DataFolderLock:
    """The lock of a data folder, a flock on `<folder>.lock`, which its servers inherit and keep until they end."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def acquire(cls, folder: Path, wait_seconds: float) -> Self:
        """Lock the folder; wait for a server that is stopping, and longer for one whose owner is dead.

        Raises `FolderTaken`.
        """
        path = folder.with_name(folder.name + ".lock")
        descriptor = open_private_file(str(path), os.O_RDWR | os.O_CREAT)
        deadline = time.monotonic() + wait_seconds
        try:
            while not _try_folder_lock(descriptor, fcntl.LOCK_EX):
                late = time.monotonic() - deadline
                if late >= _ORPHANS_SECONDS or (late >= 0 and not _is_lock_owner_dead(path)):
                    raise FolderTaken(
                        f"{folder} is in use by {_read_lock_holder(path)}: end that command first (another "
                        "STORAGE_URL, or any other setting, needs a new start), or set DATA_DIR to another folder"
                    )
                time.sleep(_POLL_SECONDS)
            lock = cls(descriptor)
            lock.write_holder(f"process {os.getpid()}")
        except BaseException:
            os.close(descriptor)
            raise
        return lock

    def write_holder(self, holder: str) -> None:
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, holder.encode(), 0)

    def close(self) -> None:
        os.close(self.descriptor)


class SharedServerAddress:
    """The file with the URL of a server that commands share, `<folder>.address`, locked as long as its owner lives.

    Each guest, a command that uses the server, holds a flock on `<folder>.guests`; the owner waits for them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guests_path = path.with_suffix(".guests")

    @contextmanager
    def publish(self, url: str, *, wait_for_guests: bool) -> Iterator[None]:
        """Publish the URL during the block and, unless interrupted, until the last guest has left."""
        draft = self._path.with_suffix(".draft")
        with open(draft, "w", encoding="utf-8", opener=open_private_file) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(url)
            file.flush()
            draft.replace(self._path)
            try:
                yield
                if wait_for_guests:
                    with open(self._guests_path, "ab", opener=open_private_file) as guests:
                        fcntl.flock(guests, fcntl.LOCK_EX)
                        self._path.unlink(missing_ok=True)  # before another guest joins
            finally:
                self._path.unlink(missing_ok=True)

    @contextmanager
    def join(self) -> Iterator[str | None]:
        """Yield the URL and keep the server running during the block; None where no owner is alive."""
        with open(self._guests_path, "ab", opener=open_private_file) as guests:
            fcntl.flock(guests, fcntl.LOCK_SH)
            yield self._read_url_of_living_owner()

    def _read_url_of_living_owner(self) -> str | None:
        try:
            with self._path.open(encoding="utf-8") as file:
                if _try_folder_lock(file.fileno(), fcntl.LOCK_SH):
                    return None  # the owner was killed, and its server is about to end
                return file.read()
        except FileNotFoundError:
            return None


def _try_folder_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_lock_owner_dead(path: Path) -> bool:
    owner = re.match(r"process (\d+)", path.read_text("utf-8"))
    if owner is None:  # it is just being written
        return False
    try:
        os.kill(int(owner[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _read_lock_holder(path: Path) -> str:
    return path.read_text("utf-8") or "another process"
