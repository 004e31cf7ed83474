"""Signals end a command by unwinding its stack, so that everything that was started is stopped."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception like that of Ctrl-C, and into `SystemExit(128 + signal)` at the end."""
    received: list[int] = []

    def interrupt_program(number: int, frame: FrameType | None) -> None:
        received.append(number)
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):
            raise SystemExit(128 + number)
        interrupt(signal.SIGINT, frame)  # that of asyncio cancels the main task, which an exception would not end well

    with _handle_signal_with(signal.SIGTERM, interrupt_program), ExitStack() as stack:
        if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup has it ignored
            stack.enter_context(_handle_signal_with(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM)))
        try:
            yield
        except KeyboardInterrupt:
            if received:
                raise SystemExit(128 + received[0]) from None
            raise


@contextmanager
def exit_normally_on_signals() -> Iterator[None]:
    """Suppress the exceptions of Ctrl-C and SIGTERM, which end a server with exit status 0."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except SystemExit as end:
        if end.code != 128 + signal.SIGTERM:
            raise


@contextmanager
def _handle_signal_with(number: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
