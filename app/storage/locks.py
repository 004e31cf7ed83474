"""Locks on files that end with the process that holds them."""

import os
import sys
import threading

from app.core.errors import StorageUnavailable

_POLL_SECONDS = 0.02

if sys.platform == "win32":

    def try_lock(descriptor: int) -> bool:
        """There is no lock that leaves the file readable: one process at a time is taken for granted."""
        return True

else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Lock an open file until it is closed; False where another one has it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def wait_for_lock(descriptor: int, stopping: threading.Event) -> None:
    """Lock an open file until it is closed, once nobody else has it."""
    while not try_lock(descriptor):
        if stopping.wait(_POLL_SECONDS):
            raise StorageUnavailable("The server is stopping")


def is_at(descriptor: int, path: str | os.PathLike[str]) -> bool:
    """Whether an open file still has this path: while one waits for its lock it may be moved or removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False
