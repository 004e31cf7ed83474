"""An embedded server as a child process: its account, its start and end, and its last words."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.core.private_files import open_private_file
from app.embedded.data_folder import EmbeddedError

if sys.platform != "win32":  # Windows shall come as far as the sentence on missing wheels
    import pwd


@dataclass(frozen=True, slots=True)
class ServerAccount:
    """The account that root switches to before it runs a server."""

    uid: int
    gid: int


def is_root() -> bool:
    return os.geteuid() == 0


def find_unprivileged_account() -> ServerAccount:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL does not run as root and there is no user nobody to run it: "
            "start as another user, or set DATABASE_URL and REDIS_URL to servers of your own."
        ) from None
    return ServerAccount(entry.pw_uid, entry.pw_gid)


def require_own_folder(folder: Path) -> None:
    owner = folder.stat().st_uid
    if owner != os.geteuid() and not is_root():
        raise EmbeddedError(
            f"{folder} belongs to user {owner} and you are user {os.geteuid()}: "
            "start as the one it belongs to, or move it away."
        )


def require_passwd_entry() -> None:
    """Raise `EmbeddedError` for a user without a passwd entry, which initdb needs."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL cannot make a database as user {os.geteuid()}, who has no entry in /etc/passwd: "
            "start as a user who has one, or set DATABASE_URL and REDIS_URL to servers of your own."
        ) from None


def choose_server_account(folder: Path) -> ServerAccount | None:
    """Return the account that runs the server, None for the current user. Root gives away a folder of its own."""
    if not is_root():
        return None
    owner = folder.stat()
    if owner.st_uid != 0:
        return ServerAccount(owner.st_uid, owner.st_gid)
    _change_folder_owner(folder, find_unprivileged_account())
    return find_unprivileged_account()


def _change_folder_owner(folder: Path, account: ServerAccount) -> None:
    for top, folders, files in os.walk(folder, topdown=False):
        for name in (*folders, *files, "."):
            os.chown(Path(top, name), account.uid, account.gid, follow_symlinks=False)


_LAUNCHER = str(Path(__file__).with_name("launcher.py"))
_STAMP = re.compile(r"^\d{4}-\S+ \S+ \S+ \[\d+\] |^\d+:[A-Z] .{20,30}? [#*.-] ")
_FAILURE_LINE = re.compile(r"FATAL:|PANIC:|DETAIL:|error:|^\d+:[A-Z] .{20,30}? # ")


def launch_server_process(
    command: Sequence[str],
    *,
    folder: Path,
    account: ServerAccount | None,
    log: Path,
    lock: int,
    death_signal: signal.Signals,
    text: str = "",
) -> subprocess.Popen[bytes]:
    """Run `command` as `account`, with `text` as its input. It holds `lock`, and on Linux dies with this thread.

    It has a session of its own: Ctrl-C in the terminal reaches the parent alone, which decides what stops first.
    """
    who = f"{account.uid}:{account.gid}" if account else ""
    launcher = [sys.executable, "-I", "-S", _LAUNCHER, str(os.getpid()), str(int(death_signal)), who]
    with open(log, "wb", opener=open_private_file) as output:
        process = subprocess.Popen(  # noqa: S603  the command is our own
            [*launcher, *command],
            cwd=folder,
            env=_server_environment(),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            start_new_session=True,
        )
    assert process.stdin is not None  # noqa: S101  a pipe, see above
    with suppress(BrokenPipeError), process.stdin as standard_input:
        standard_input.write(text.encode())
    return process


def end_process(process: subprocess.Popen[bytes], signals: Sequence[signal.Signals], grace_seconds: float) -> None:
    """Send each signal in turn, waiting `grace_seconds` after each, then kill and reap the process."""
    try:
        for number in signals:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(grace_seconds)
                return
    finally:
        process.kill()
        process.wait()


def summarize_log_failure(log: Path) -> str:
    """Return the last two lines of a server's log, of those about failures if there are any."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    failure_lines = [line for line in lines if _FAILURE_LINE.search(line)] or lines
    return "; ".join(_STAMP.sub("", line) for line in failure_lines[-2:]) or "its log is empty"


def _server_environment() -> dict[str, str]:
    """Return the environment of a server: no settings, because they hold passwords.

    Messages are in English: some are looked for.
    """
    inherited = ("PATH", "HOME", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
    return {**{name: os.environ[name] for name in inherited if name in os.environ}, "LC_ALL": "C"}
