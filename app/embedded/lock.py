"""Whose a data folder is: a lock that lasts as long as any process of its server."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from app.embedded.errors import FolderTaken

if sys.platform != "win32":  # Windows shall come as far as the sentence on missing wheels
    import fcntl

_POLL_SECONDS = 0.05


class FolderLock:
    """A flock on `<folder>.lock`. Servers inherit `descriptor`: the folder stays locked until the last of them ends."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def acquire(cls, folder: Path, wait_seconds: float) -> Self:
        """Wait for a server that is going away; a FolderTaken says who still holds the folder after that."""
        path = folder.with_name(folder.name + ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + wait_seconds
        try:
            while not _try_lock(descriptor):
                if time.monotonic() >= deadline:
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


class Guests:
    """Who uses a server that another command runs: a flock on `<folder>.guests`, which its owner waits for."""

    def __init__(self, folder: Path) -> None:
        self._path = folder.with_name(folder.name + ".guests")

    @contextmanager
    def join(self) -> Iterator[None]:
        """Keep the owner waiting inside the block."""
        with self._path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield

    def see_off(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """As the exit of a `with`: return when no guest is there, and at once where the owner was interrupted."""
        if error is None or isinstance(error, Exception):
            with self._path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> str:
    return path.read_text("utf-8") or "another process"
