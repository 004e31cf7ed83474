"""Whose a data folder is: a lock that lasts as long as any process of its server."""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from app.core.private import private_opener
from app.embedded.errors import FolderTaken

if sys.platform != "win32":  # Windows shall come as far as the sentence on missing wheels
    import fcntl

_POLL_SECONDS = 0.05
_ORPHANS_SECONDS = 60.0  # for what a killed owner has left: it ends by itself, slowly on a busy machine


class FolderLock:
    """A flock on `<folder>.lock`. Servers inherit `descriptor`: the folder stays locked until the last of them ends."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def acquire(cls, folder: Path, wait_seconds: float) -> Self:
        """Wait for a server that is going away, and longer where its owner is dead.

        A FolderTaken says who still holds the folder after that.
        """
        path = folder.with_name(folder.name + ".lock")
        descriptor = private_opener(str(path), os.O_RDWR | os.O_CREAT)
        deadline = time.monotonic() + wait_seconds
        try:
            while not _try_lock(descriptor, fcntl.LOCK_EX):
                late = time.monotonic() - deadline
                if late >= _ORPHANS_SECONDS or (late >= 0 and not _is_dead(path)):
                    raise FolderTaken(
                        f"{folder} is in use by {_holder(path)}: end that command first (another STORAGE_URL, or any "
                        "other setting, needs a new start), or set DATA_DIR to another folder"
                    )
                time.sleep(_POLL_SECONDS)
            lock = cls(descriptor)
            lock.write(f"process {os.getpid()}")
        except BaseException:
            os.close(descriptor)
            raise
        return lock

    def write(self, holder: str) -> None:
        """Leave a word on who holds the folder, for the message of a second start."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, holder.encode(), 0)

    def close(self) -> None:
        os.close(self.descriptor)


class Address:
    """The URL of a server that its owner shares: `<folder>.address`, locked as long as the owner lives.

    A flock on `<folder>.guests` is what each command holds that uses the server, and what its owner waits for.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guests_path = path.with_suffix(".guests")

    @contextmanager
    def publish(self, url: str, *, wait_for_guests: bool) -> Iterator[None]:
        """Show the URL inside the block, and then, unless the owner was interrupted, until the last guest has gone."""
        draft = self._path.with_suffix(".draft")
        with open(draft, "w", encoding="utf-8", opener=private_opener) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(url)
            file.flush()
            draft.replace(self._path)
            try:
                yield
                if wait_for_guests:
                    with open(self._guests_path, "ab", opener=private_opener) as guests:
                        fcntl.flock(guests, fcntl.LOCK_EX)
                        self._path.unlink(missing_ok=True)  # before another guest comes
            finally:
                self._path.unlink(missing_ok=True)

    @contextmanager
    def join(self) -> Iterator[str | None]:
        """Yield the URL and keep the owner waiting inside the block; None where there is no owner that lives."""
        with open(self._guests_path, "ab", opener=private_opener) as guests:
            fcntl.flock(guests, fcntl.LOCK_SH)
            yield self._read()

    def _read(self) -> str | None:
        try:
            with self._path.open(encoding="utf-8") as file:
                if _try_lock(file.fileno(), fcntl.LOCK_SH):
                    return None  # the owner was killed, and its server is about to end
                return file.read()
        except FileNotFoundError:
            return None


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_dead(path: Path) -> bool:
    """Whether the process that has written the lock is known to have ended."""
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


def _holder(path: Path) -> str:
    return path.read_text("utf-8") or "another process"
