"""Limits of child processes that read what strangers have sent.

Where the system has them (Linux, and all but the memory on macOS): an address space, seconds of processor time, no
core dumps. On Linux such a child ends with the thread that started it, and gets no new privileges. Windows has none.
"""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

_LAUNCHER = str(Path(__file__).with_name("limited_launcher.py"))


def limited_command(command: Sequence[str], memory_bytes: int, cpu_seconds: float) -> list[str]:
    """Return a command that runs `command`, whose first word is an absolute path, within limits.

    Only this process can start it. Beyond its processor time a child is killed by a signal; beyond its memory
    it is refused more.
    """
    if find_spec("resource") is None:
        return list(command)
    limits = [str(os.getpid()), str(memory_bytes), str(max(int(cpu_seconds), 1))]
    return [sys.executable, "-I", "-S", _LAUNCHER, *limits, *command]
