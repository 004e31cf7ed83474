"""`python -m app …`: starts the command line."""

import os
import signal
import sys
from types import FrameType


def _exit_without_traceback(signal_number: int, frame: FrameType | None) -> None:
    os._exit(0 if sys.argv[1:] == ["run"] else 128 + signal_number)


_is_early = __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _is_early:
    signal.signal(signal.SIGINT, _exit_without_traceback)  # the imports below take half a second

from app.cli.command_line import main

if _is_early:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if __name__ == "__main__":
    sys.exit(main())
