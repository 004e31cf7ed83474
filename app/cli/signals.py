"""Signals end a command by unwinding its stack, so that everything that was started is stopped."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType


@contextmanager
def signals_exit() -> Iterator[None]:
    """Make SIGTERM, and the end of the terminal, raise as Ctrl-C does."""
    received: list[int] = []

    def leave(number: int, frame: FrameType | None) -> None:
        received.append(number)
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):
            raise SystemExit(128 + number)
        interrupt(signal.SIGINT, frame)  # that of asyncio cancels the main task, which an exception would not end well

    with _handling(signal.SIGTERM, leave), ExitStack() as stack:
        if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup has it ignored
            stack.enter_context(_handling(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM)))
        try:
            yield
        except KeyboardInterrupt:
            if received:
                raise SystemExit(128 + received[0]) from None
            raise


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Take Ctrl-C and SIGTERM for what they are to a server: its ordinary end."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except SystemExit as end:
        if end.code != 128 + signal.SIGTERM:
            raise


@contextmanager
def _handling(number: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
