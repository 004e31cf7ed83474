"""Become a server: drop root, close new files to others, die with the parent, exec.

A script of its own, so that no fork runs Python code.

Arguments: parent pid, signal to get when the parent dies, "uid:gid" or "", then the command.
"""

import os
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def become_server() -> None:
    parent, death_signal, account, *command = sys.argv[1:]
    try:
        if sys.platform == "linux":
            import ctypes  # before root is dropped: afterwards the interpreter's folder may be out of reach

            libc = ctypes.CDLL(None)
        if account:
            uid, gid = map(int, account.split(":"))
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        os.umask(0o077)
        if sys.platform == "linux":
            libc.prctl(PR_SET_PDEATHSIG, int(death_signal))  # a change of uid would clear it
            if os.getppid() != int(parent):  # it died before the line above
                return
        os.execv(command[0], command)  # noqa: S606  no shell is wanted
    except OSError as error:
        sys.exit(f"error: {command[0]} cannot run as {account or 'this user'}: {error}")


if __name__ == "__main__":
    become_server()
