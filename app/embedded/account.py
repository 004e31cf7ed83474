"""Who runs a server: its user, or as root the owner of the data folder, which is `nobody` unless it was another."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from app.embedded.errors import EmbeddedError

if sys.platform != "win32":  # Windows shall come as far as the sentence on missing wheels
    import pwd


@dataclass(frozen=True, slots=True)
class Account:
    """Whom root becomes before it runs a server."""

    uid: int
    gid: int


def is_root() -> bool:
    return os.geteuid() == 0


def nobody() -> Account:
    """The account for a new folder. initdb wants one with a passwd entry, so a free number would not do."""
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL does not run as root and there is no user nobody to run it: "
            "start as another user, or set DATABASE_URL and REDIS_URL to servers of your own."
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def require_own(folder: Path) -> None:
    """Root may serve anybody's folder, anybody else only his own."""
    owner = folder.stat().st_uid
    if owner != os.geteuid() and not is_root():
        raise EmbeddedError(
            f"{folder} belongs to user {owner} and you are user {os.geteuid()}: "
            "start as the one it belongs to, or move it away."
        )


def require_name() -> None:
    """initdb looks its user up: one that only a number makes, as of `docker run --user 12345`, will not do."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL cannot make a database as user {os.geteuid()}, who has no entry in /etc/passwd: "
            "start as a user who has one, or set DATABASE_URL and REDIS_URL to servers of your own."
        ) from None


def account_for(folder: Path) -> Account | None:
    """The account that serves `folder`, None for the user as he is. Root gives away a folder that is root's own."""
    if not is_root():
        return None
    owner = folder.stat()
    if owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    _give(folder, nobody())
    return nobody()


def _give(folder: Path, account: Account) -> None:
    for top, folders, files in os.walk(folder, topdown=False):
        for name in (*folders, *files, "."):
            os.chown(Path(top, name), account.uid, account.gid, follow_symlinks=False)
