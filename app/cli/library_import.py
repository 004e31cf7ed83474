"""One import of a library: its progress, summary and exit status."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from app.core.config import Settings
from app.core.console import open_console
from app.core.errors import VideoMomentsError
from app.core.masking import mask_secrets
from app.importer.importing import ImportOptions, ImportProgress, import_library
from app.importer.report import ROW_STATES, TABLES, EntryKind, ImportReport
from app.storage import open_storage

_log = logging.getLogger("app.importer")
_SECONDS_BETWEEN_LINES = 5.0


class ImportProgressBars:
    """Progress bars of an import on a terminal: one for videos, and one for bytes where files are copied."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            _AmountColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Bar(*columns, console=console, transient=True)
        self._videos = self._bar.add_task("Importing", total=None, rows=0)
        self._files = self._bar.add_task("Copying", total=None, visible=False)

    def start_progress(self, video_count: int, total_bytes: int) -> None:
        self._bar.update(self._videos, total=video_count)
        self._bar.update(self._files, total=total_bytes, visible=total_bytes > 0)
        self._bar.start()

    def update_progress(self, report: ImportReport) -> None:
        self._bar.update(self._videos, advance=1, rows=report.rows)

    def add_copied_bytes(self, size: int) -> None:
        self._bar.update(self._files, advance=size)

    def stop_progress(self) -> None:
        self._bar.stop()


class _AmountColumn(ProgressColumn):
    """A progress bar's text of videos and rows, or of bytes and bytes per second."""

    def render(self, task: Task) -> Text:
        if "rows" in task.fields:
            return Text(f"{task.completed:.0f}/{task.total or 0:.0f} videos, {task.fields['rows']:,} rows")
        rate = decimal(int(task.finished_speed or task.speed or 0))
        return Text(f"{decimal(int(task.completed))} of {decimal(int(task.total or 0))}, {rate}/s")


class ImportProgressLog:
    """Progress of an import in the log, as one line every five seconds."""

    def __init__(self) -> None:
        self._videos = self._done = self._rows = 0
        self._size = self._copied = 0
        self._began = self._spoken = time.monotonic()

    def start_progress(self, video_count: int, total_bytes: int) -> None:
        self._videos, self._size = video_count, total_bytes
        self._began = time.monotonic()
        _log.info("Importing %s videos%s", video_count, f" and copying {decimal(total_bytes)}" if total_bytes else "")

    def update_progress(self, report: ImportReport) -> None:
        self._done, self._rows = self._done + 1, report.rows
        self._log_progress()

    def add_copied_bytes(self, size: int) -> None:
        self._copied += size
        self._log_progress()

    def stop_progress(self) -> None:
        _log.info("Went through %s of %s videos", self._done, self._videos)

    def _log_progress(self) -> None:
        now = time.monotonic()
        if now - self._spoken < _SECONDS_BETWEEN_LINES:
            return
        self._spoken = now
        copied = ""
        if self._size:
            rate = decimal(int(self._copied / (now - self._began)))
            copied = f", copied {decimal(self._copied)} of {decimal(self._size)}, {rate}/s"
        _log.info("Imported %s of %s videos, %s rows%s", self._done, self._videos, self._rows, copied)


_LINES_PER_KIND = 10
_LONGEST_CONTENT = 120

_MEANINGS = {
    EntryKind.FAILED: "videos failed: nothing of them was written",
    EntryKind.REFUSED: "refused: cannot enter the tables",
    EntryKind.RENAMED: "renamed: stored under another id",
    EntryKind.MERGED: "merged: say the same as another row",
    EntryKind.CHANGED: "changed: stored with another value",
    EntryKind.DROPPED: "dropped: values without a column",
    EntryKind.MISSING: "videos without a file",
    EntryKind.ORPHAN: "files that belong to nothing",
    EntryKind.KEPT: "kept: rows that the files do not account for",
}


def print_import_summary(report: ImportReport, console: Console) -> None:
    """Print the counts of an import's report, and the first ten entries of each kind."""
    _print_row_counts(report, console)
    for line in _describe_imported_files(report):
        console.print(line, markup=False)
    lines = _format_first_entries_of_each_kind(report)
    for kind in EntryKind:
        if count := report.counts[kind]:
            console.print()
            console.print(f"{count:,} {_MEANINGS[kind]}", markup=False)
            for line in lines[kind]:
                console.print(f"  {mask_secrets(line)}", markup=False)
            if count > len(lines[kind]):
                console.print(f"  … and {count - len(lines[kind]):,} more: --report FILE writes them all", markup=False)


def _print_row_counts(report: ImportReport, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("table")
    for state in ROW_STATES:
        table.add_column(state, justify="right")
    for name in TABLES:
        table.add_row(name, *(f"{report.row_counts[name, state]:,}" for state in ROW_STATES))
    console.print(table)
    speed = f"{report.rows:,} rows of {report.videos:,} videos in {report.seconds:.1f} s"
    mode = "Dry run, nothing was written: " if report.dry_run else ""
    console.print()
    console.print(f"{mode}{speed}, {report.rows_per_second:,.0f} rows/s", markup=False)


def _describe_imported_files(report: ImportReport) -> Iterator[str]:
    if report.copy:
        copied, verb = report.copied, "to be copied" if report.dry_run else "copied"
        new, old = (
            _describe_file_total(copied.new_files, copied.new_bytes),
            _describe_file_total(copied.old_files, copied.old_bytes),
        )
        yield f"{new} {verb}, {old} already there"
        if report.elsewhere:
            yield f"{report.elsewhere:,} rows name files in buckets or on other hosts, which are not copied"
    if report.in_place:
        yield f"{report.in_place:,} files are served from where they lie; {_describe_needed_library_dirs(report)}"


def _describe_file_total(count: int, size: int) -> str:
    return f"{count:,} files ({decimal(size)})"


def _describe_needed_library_dirs(report: ImportReport) -> str:
    setting = f"LIBRARY_DIRS={','.join(map(str, report.folders))}"
    if report.note_problem:
        return f"the server needs {setting}, because this failed: {report.note_problem}"
    return f"a server with another DATA_DIR needs {setting}"


def _format_first_entries_of_each_kind(report: ImportReport) -> dict[EntryKind, list[str]]:
    lines: dict[EntryKind, list[str]] = {kind: [] for kind in EntryKind}
    for entry in report.read_entries():
        if len(lines[EntryKind(entry["kind"])]) < _LINES_PER_KIND:
            lines[EntryKind(entry["kind"])].append(_format_report_entry(entry))
    return lines


def _format_report_entry(entry: dict[str, Any]) -> str:
    location = entry.get("file") or entry.get("video") or ""
    row = f" row {entry['row']}" if "row" in entry else ""
    content = json.dumps(entry["content"], ensure_ascii=False) if "content" in entry else ""
    if len(content) > _LONGEST_CONTENT:
        content = content[:_LONGEST_CONTENT] + "…"
    # A file's name may hold half a surrogate pair, which no terminal can print.
    return f"{location}{row}: {entry['reason']} {content}".rstrip().encode(errors="backslashreplace").decode()


def execute_import(settings: Settings, directory: Path, options: ImportOptions, report_file: Path | None = None) -> int:
    """Import a library with progress bars or lines, print the summary, and return the exit status: 0, 1 or 2."""
    console, errors = open_console(), open_console(stderr=True)
    progress: ImportProgress = ImportProgressBars(errors) if errors.is_terminal else ImportProgressLog()
    try:
        report = asyncio.run(_import_with_storage(settings, directory, options, progress))
    except VideoMomentsError as error:
        errors.print(str(error), markup=False)
        return 2
    with report:
        is_written = _write_report_file(report, report_file, errors)
        print_import_summary(report, console)
        return 0 if is_written and report.is_complete else 1


async def _import_with_storage(
    settings: Settings, directory: Path, options: ImportOptions, progress: ImportProgress
) -> ImportReport:
    storage = open_storage(settings)
    try:
        return await import_library(settings, storage, directory, options, progress)
    finally:
        await storage.aclose()


def _write_report_file(report: ImportReport, path: Path | None, errors: Console) -> bool:
    if path is None:
        return True
    try:
        report.write(path)
    except OSError as error:
        errors.print(f"The report could not be written to {path}: {error.strerror}", markup=False)
        return False
    return True
