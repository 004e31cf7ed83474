"""How far an import is: bars on a terminal, a line now and then in a log."""

import logging
import time

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from app.importer.report import Report

_log = logging.getLogger("app.importer")
_SECONDS_BETWEEN_LINES = 5.0


class BarProgress:
    """A bar for the videos, and one for the bytes where files are copied."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), _Amount(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=console, transient=True)
        self._videos = self._bar.add_task("Importing", total=None, rows=0)
        self._files = self._bar.add_task("Copying", total=None, visible=False)

    def begin(self, videos: int, size: int) -> None:
        self._bar.update(self._videos, total=videos)
        self._bar.update(self._files, total=size, visible=size > 0)
        self._bar.start()

    def advance(self, report: Report) -> None:
        self._bar.update(self._videos, advance=1, rows=report.rows)

    def copy(self, size: int) -> None:
        self._bar.update(self._files, advance=size)

    def end(self) -> None:
        self._bar.stop()


class _Amount(ProgressColumn):
    """Videos and rows, or bytes and bytes per second."""

    def render(self, task: Task) -> Text:
        if "rows" in task.fields:
            return Text(f"{task.completed:.0f}/{task.total or 0:.0f} videos, {task.fields['rows']:,} rows")
        rate = decimal(int(task.finished_speed or task.speed or 0))
        return Text(f"{decimal(int(task.completed))} of {decimal(int(task.total or 0))}, {rate}/s")


class LogProgress:
    """A line in the log every few seconds."""

    def __init__(self) -> None:
        self._videos = self._done = self._rows = 0
        self._size = self._copied = 0
        self._began = self._spoken = time.monotonic()

    def begin(self, videos: int, size: int) -> None:
        self._videos, self._size = videos, size
        self._began = time.monotonic()
        _log.info("Importing %s videos%s", videos, f" and copying {decimal(size)}" if size else "")

    def advance(self, report: Report) -> None:
        self._done, self._rows = self._done + 1, report.rows
        self._speak()

    def copy(self, size: int) -> None:
        self._copied += size
        self._speak()

    def end(self) -> None:
        _log.info("Went through %s of %s videos", self._done, self._videos)

    def _speak(self) -> None:
        now = time.monotonic()
        if now - self._spoken < _SECONDS_BETWEEN_LINES:
            return
        self._spoken = now
        copied = ""
        if self._size:
            rate = decimal(int(self._copied / (now - self._began)))
            copied = f", copied {decimal(self._copied)} of {decimal(self._size)}, {rate}/s"
        _log.info("Imported %s of %s videos, %s rows%s", self._done, self._videos, self._rows, copied)
