"""What the operating system says of a file, as this project's errors."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from app.core.errors import FileMissing, StorageFull, StorageUnavailable

_log = logging.getLogger(__name__)

_NOT_THERE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENXIO,  # a socket
    errno.EINVAL,
}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def reading(*, action: str = "read") -> Iterator[None]:
    """Raise `FileMissing` or `StorageUnavailable` for an `OSError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise FileMissing from None
        _log.warning("A file cannot be %s: %s", action, error)
        raise StorageUnavailable(f"The file cannot be {action}: {_reason(error)}") from None


@contextmanager
def writing() -> Iterator[None]:
    """Raise `StorageFull` or `StorageUnavailable` for an `OSError`."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise StorageFull(f"There is no room for the file: {_reason(error)}") from None
        _log.warning("The folder of stored files cannot be written: %s", error)
        raise StorageUnavailable(f"The folder of stored files cannot be written: {_reason(error)}") from None


def is_full(error: OSError) -> bool:
    """Tell whether there was no room for what was to be written."""
    return error.errno in _NO_ROOM


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else "unknown error"
