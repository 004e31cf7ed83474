"""Become a limited program: die with the parent, get the limits, exec. A script of its own, so that no fork runs Python
code of a process with threads.

Arguments: parent pid, bytes of memory, seconds of processor time, then the command.
"""

import contextlib
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38  # <linux/prctl.h>
_GRACE_SECONDS = 5  # of processor time between the signal to end and the one that cannot be ignored


def main() -> None:
    parent, memory, seconds, *command = sys.argv[1:]
    try:
        if sys.platform == "linux":
            import ctypes

            libc = ctypes.CDLL(None)
            libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            if os.getppid() != int(parent):  # it died before the lines above
                return
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_CPU, int(seconds), _GRACE_SECONDS)
        _limit(resource.RLIMIT_AS, int(memory))
        os.execv(command[0], command)  # noqa: S606  no shell is wanted
    except OSError as error:
        sys.exit(f"error: {command[0]} cannot run: {error}")


def _limit(kind: int, value: int, grace: int = 0) -> None:
    """Set a limit that is not above one that holds already; macOS knows none for the address space."""
    _, highest = resource.getrlimit(kind)
    hard = value + grace if highest == resource.RLIM_INFINITY else min(value + grace, highest)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(kind, (min(value, hard), hard))


if __name__ == "__main__":
    main()
