"""Resource limits of child processes that read untrusted files.

Where the system has them (Linux, and all but the memory on macOS): an address space, seconds of processor time, no
core dumps. On Linux such a child ends with the thread that started it, and gets no new privileges. Windows has none.

Run as a script, this module sets the limits and becomes the command, so that no fork runs Python code of a process with
threads. Its arguments: parent pid, bytes of memory, seconds of processor time, then the command.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38  # <linux/prctl.h>
_GRACE_SECONDS = 5  # of processor time between the signal to end and the one that cannot be ignored


def make_limited_command(command: Sequence[str], memory_bytes: int, cpu_seconds: float) -> list[str]:
    """Return a command that sets limits of memory and processor time and then becomes `command`."""
    if sys.platform == "win32":
        return list(command)
    limits = [str(os.getpid()), str(memory_bytes), str(max(int(cpu_seconds), 1))]
    return [sys.executable, "-I", "-S", __file__, *limits, *command]


def main() -> None:
    """Set the limits in the arguments on this process, and replace it by the command."""
    import resource  # which Windows does not have

    parent, memory, seconds, *command = sys.argv[1:]
    try:
        if sys.platform == "linux":
            import ctypes

            libc = ctypes.CDLL(None)
            libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            if os.getppid() != int(parent):  # it died before the lines above
                return
        _limit_resource(resource.RLIMIT_CORE, 0)
        _limit_resource(resource.RLIMIT_CPU, int(seconds), _GRACE_SECONDS)
        _limit_resource(resource.RLIMIT_AS, int(memory))
        os.execv(command[0], command)  # noqa: S606  no shell is wanted
    except OSError as error:
        sys.exit(f"error: {command[0]} cannot run: {error}")


def _limit_resource(kind: int, value: int, grace: int = 0) -> None:
    """Set a limit, but never above the current one; macOS has none for the address space."""
    import resource

    _, highest = resource.getrlimit(kind)
    hard = value + grace if highest == resource.RLIM_INFINITY else min(value + grace, highest)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(kind, (min(value, hard), hard))


if __name__ == "__main__":
    main()
