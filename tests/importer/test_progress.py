"""Progress on a terminal and in a log."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from app.importer import command
from app.importer.command import ProgressBars, ProgressLog
from app.importer.report import ImportReport, TableCount


@pytest.fixture
def report(tmp_path: Path) -> Iterator[ImportReport]:
    with ImportReport(tmp_path, dry_run=False) as report:
        report.add_tables({"moments": TableCount(new=1200)})
        yield report


def test_a_terminal_shows_a_bar_with_videos_and_rows(report: ImportReport) -> None:
    output = io.StringIO()
    bar = ProgressBars(Console(file=output, force_terminal=True, width=120))
    bar.start_progress(2, 0)
    bar.update_progress(report)
    bar.stop_progress()
    assert "1/2" in output.getvalue()
    assert "1,200 rows" in output.getvalue()


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, ["Imported 1 of 2 videos, 1200 rows"]), (3600.0, [])])
def test_a_log_gets_a_line_when_some_time_has_passed(
    report: ImportReport,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    lines: list[str],
) -> None:
    monkeypatch.setattr(command, "_SECONDS_BETWEEN_LINES", seconds)
    with caplog.at_level(logging.INFO, "app.importer"):
        log = ProgressLog()
        log.start_progress(2, 0)
        log.update_progress(report)
        log.stop_progress()
    assert caplog.messages == ["Importing 2 videos", *lines, "Went through 1 of 2 videos"]


def test_a_terminal_shows_a_bar_with_bytes_and_their_rate_where_files_are_copied(report: ImportReport) -> None:
    output = io.StringIO()
    bar = ProgressBars(Console(file=output, force_terminal=True, width=120))
    bar.start_progress(2, 4_000_000)
    bar.add_copied_bytes(1_500_000)
    bar.stop_progress()
    assert "1.5 MB of 4.0 MB" in output.getvalue()
    assert "/s" in output.getvalue()


def test_a_terminal_shows_no_second_bar_where_nothing_is_copied(report: ImportReport) -> None:
    output = io.StringIO()
    bar = ProgressBars(Console(file=output, force_terminal=True, width=120))
    bar.start_progress(2, 0)
    bar.stop_progress()
    assert "Copying" not in output.getvalue()


def test_a_log_gets_lines_while_one_long_file_is_copied(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO, "app.importer"):
        log = ProgressLog()
        log.start_progress(2, 4_000_000)
        log.add_copied_bytes(1_500_000)
    assert caplog.messages[0] == "Importing 2 videos and copying 4.0 MB"
    assert caplog.messages[1].startswith("Imported 0 of 2 videos, 0 rows, copied 1.5 MB of 4.0 MB, ")
