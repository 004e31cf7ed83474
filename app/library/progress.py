"""How far an import is: a bar on a terminal, a line now and then in a log."""

import logging
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from app.library.report import Report

_log = logging.getLogger("app.library")
_SECONDS_BETWEEN_LINES = 5.0


class BarProgress:
    """A bar on a terminal."""

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            TextColumn("Importing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("videos, {task.fields[rows]:,} rows"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, rows=0)

    def begin(self, videos: int) -> None:
        self._bar.update(self._task, total=videos)
        self._bar.start()

    def advance(self, report: Report) -> None:
        self._bar.update(self._task, advance=1, rows=report.rows)

    def end(self) -> None:
        self._bar.stop()


class LogProgress:
    """A line in the log every few seconds."""

    def __init__(self) -> None:
        self._videos = self._done = 0
        self._spoken = time.monotonic()

    def begin(self, videos: int) -> None:
        self._videos = videos
        _log.info("Importing %s videos", videos)

    def advance(self, report: Report) -> None:
        self._done += 1
        if time.monotonic() - self._spoken >= _SECONDS_BETWEEN_LINES:
            self._spoken = time.monotonic()
            _log.info("Imported %s of %s videos, %s rows", self._done, self._videos, report.rows)

    def end(self) -> None:
        _log.info("Went through %s of %s videos", self._done, self._videos)
