"""`python -m app import DIR`: its arguments and its exit status."""

import argparse
import asyncio
from pathlib import Path

from rich.console import Console

from app.core.config import Settings
from app.core.console import open_console
from app.core.errors import VideoMomentsError
from app.importer.importing import ImportOptions, Progress, import_library
from app.importer.layout import NoLibrary, find_root
from app.importer.progress import BarProgress, LogProgress
from app.importer.report import Report
from app.importer.summary import print_summary
from app.storage import open_storage

_DESCRIPTION = """Bring a library of the previous backend into the database: videos, transcripts, moments, thumbnails,
clips, the URL registry and the pipeline history. Nothing in DIR is changed, and importing again changes nothing.
The server serves the files from where they lie, or with --copy from STORAGE_URL."""
_EPILOG = """Exit status: 0 when everything is in; 1 when a row or a file was refused or a video failed, and the rest is
in; 2 when nothing could be imported at all, or when the storage became full or went away: importing again goes on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command to `parser`."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("directory", metavar="DIR", type=_library, help="the static/ folder, or the folder it is in")
    parser.add_argument("--copy", action="store_true", help="bring the files of DIR into STORAGE_URL, too")
    parser.add_argument("--dry-run", action="store_true", help="write nothing, and say what would be written")
    parser.add_argument("--report", metavar="FILE", type=_report_file, help="write the whole report to FILE, as JSON")
    parser.add_argument("--bucket", help="the bucket of clips that name only a path: gs://BUCKET/clips/…")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Import, print the summary, and return the exit status."""
    console, errors = open_console(), open_console(stderr=True)
    progress: Progress = BarProgress(errors) if errors.is_terminal else LogProgress()
    try:
        report = asyncio.run(_import(options, settings, progress))
    except VideoMomentsError as error:
        errors.print(str(error), markup=False)
        return 2
    with report:
        is_written = _write_report(report, options.report, errors)
        print_summary(report, console)
        return 0 if is_written and report.is_complete else 1


async def _import(options: argparse.Namespace, settings: Settings, progress: Progress) -> Report:
    how = ImportOptions(options.dry_run, options.bucket, options.copy)
    storage = open_storage(settings)
    try:
        return await import_library(settings, storage, options.directory, how, progress)
    finally:
        await storage.aclose()


def _write_report(report: Report, path: Path | None, errors: Console) -> bool:
    if path is None:
        return True
    try:
        report.write(path)
    except OSError as error:
        errors.print(f"The report could not be written to {path}: {error.strerror}", markup=False)
        return False
    return True


def _library(text: str) -> Path:
    try:
        return find_root(Path(text))
    except NoLibrary as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _report_file(text: str) -> Path:
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.absolute().parent}")
    return path
