"""The random password of an embedded server, kept for its user alone."""

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path


def keep_password(path: Path) -> str:
    """Return the password in a file of mode 0600, which is written where there is none that can be trusted.

    Raises `OSError`.
    """
    return _read_password(path) or _write_password(path)


def _read_password(path: Path) -> str | None:
    """None where the file is missing, or may have been written or read by another user."""
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


def _write_password(path: Path) -> str:
    """Root writes it for the owner of the folder, who may start the server the next time."""
    password = secrets.token_hex(32)
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(password)
            if os.geteuid() == 0:
                folder = path.parent.stat()
                os.chown(descriptor, folder.st_uid, folder.st_gid)
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)
    return password
