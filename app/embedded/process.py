"""A server as a child process: how it begins, how it ends, what it said."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from app.core.private import private_opener
from app.embedded.account import Account

_LAUNCHER = str(Path(__file__).with_name("launcher.py"))
_STAMP = re.compile(r"^\d{4}-\S+ \S+ \S+ \[\d+\] |^\d+:[A-Z] .{20,30}? [#*.-] ")
_TELLING = re.compile(r"FATAL:|PANIC:|DETAIL:|error:|^\d+:[A-Z] .{20,30}? # ")


def launch(
    command: Sequence[str],
    *,
    folder: Path,
    account: Account | None,
    log: Path,
    lock: int,
    death_signal: signal.Signals,
    text: str = "",
) -> subprocess.Popen[bytes]:
    """Run `command` in `folder` as `account`. It reads `text`, holds `lock`, and on Linux dies with the calling thread.

    In a session of its own: Ctrl-C in the terminal reaches the parent alone, who decides what stops first.
    """
    who = f"{account.uid}:{account.gid}" if account else ""
    launcher = [sys.executable, "-I", "-S", _LAUNCHER, str(os.getpid()), str(int(death_signal)), who]
    with open(log, "wb", opener=private_opener) as output:
        process = subprocess.Popen(  # noqa: S603  the command is our own
            [*launcher, *command],
            cwd=folder,
            env=_environment(),
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


def end(process: subprocess.Popen[bytes], signals: Sequence[signal.Signals], grace_seconds: float) -> None:
    """Send each signal in turn with `grace_seconds` to obey, then kill. The process is gone and reaped on return."""
    try:
        for number in signals:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(grace_seconds)
                return
    finally:
        process.kill()
        process.wait()


def last_words(log: Path) -> str:
    """The last two lines of a log that tell why, without their time stamps."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)] or lines
    return "; ".join(_STAMP.sub("", line) for line in telling[-2:]) or "it said nothing"


def _environment() -> dict[str, str]:
    """What a program needs, and nothing else: settings hold passwords and keys, and the account may not be this user.

    Messages are in English: some are looked for.
    """
    kept = ("PATH", "HOME", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
    return {**{name: os.environ[name] for name in kept if name in os.environ}, "LC_ALL": "C"}
