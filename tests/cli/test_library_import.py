"""The import command: arguments, output, progress and exit status."""

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from app.cli import library_import
from app.cli.command_line import main
from app.cli.library_import import ImportProgressBars, ImportProgressLog, execute_import
from app.core.config import Settings
from app.importer.importing import ImportOptions
from app.importer.report import ImportReport
from tests.importer.legacy import LegacyLibrary, make_row


@pytest.fixture
def settings(own_database_url: str, tmp_path: Path) -> Settings:
    return Settings(database_url=own_database_url, data_dir=tmp_path / "data")


def test_a_complete_import_ends_with_0_and_says_how_many_rows(
    settings: Settings, legacy: LegacyLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_moments("talk", make_row(0, 30), make_row(30, 60))
    assert execute_import(settings, legacy.root, ImportOptions()) == 0
    output = capsys.readouterr().out
    assert "5 rows of 1 videos" in output
    assert "rows/s" in output


def test_a_library_that_is_the_servers_own_folder_ends_with_2(
    settings: Settings, legacy: LegacyLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_moments("talk", make_row())
    own = settings.model_copy(update={"storage_url": legacy.root.as_uri()})
    assert execute_import(own, legacy.root, ImportOptions()) == 2
    assert capsys.readouterr().err.startswith("STORAGE_URL must not lie in the library ")


def test_an_incomplete_import_ends_with_1_and_names_the_row(
    settings: Settings, legacy: LegacyLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_moments("talk", make_row(0, 30), make_row(30, 20))
    assert execute_import(settings, legacy.root, ImportOptions()) == 1
    assert "moments/talk.json row 2: end_time is not greater than start_time" in capsys.readouterr().out


def test_the_report_is_written_where_it_is_asked_for(settings: Settings, legacy: LegacyLibrary, tmp_path: Path) -> None:
    legacy.add_moments("talk", make_row())
    assert execute_import(settings, legacy.root, ImportOptions(), tmp_path / "report.json") == 0
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert (report["complete"], report["tables"]["moments"]["new"]) == (True, 1)


def test_a_report_that_cannot_be_written_ends_with_1(
    settings: Settings, legacy: LegacyLibrary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_moments("talk", make_row())
    (tmp_path / "report.json").mkdir()
    assert execute_import(settings, legacy.root, ImportOptions(), tmp_path / "report.json") == 1
    assert "report could not be written" in capsys.readouterr().err


def test_a_dry_run_says_that_nothing_was_written(
    settings: Settings, legacy: LegacyLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_moments("talk", make_row())
    assert execute_import(settings, legacy.root, ImportOptions(dry_run=True)) == 0
    assert "nothing was written" in capsys.readouterr().out


def test_the_summary_says_where_files_are_served_from(
    settings: Settings, legacy: LegacyLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_video("talk.mp4")
    execute_import(settings, legacy.root, ImportOptions())
    assert (
        f"1 files are served from where they lie; a server with another DATA_DIR needs LIBRARY_DIRS={legacy.root}\n"
        in capsys.readouterr().out
    )


def test_the_summary_says_what_to_set_where_the_folder_could_not_be_noted(
    settings: Settings, legacy: LegacyLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_video("talk.mp4")
    settings.data_dir.touch()
    execute_import(settings, legacy.root, ImportOptions())
    assert f"the server needs LIBRARY_DIRS={legacy.root}, because this failed: " in capsys.readouterr().out


def test_the_summary_says_how_much_was_copied(
    settings: Settings, legacy: LegacyLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_moments("talk", make_row(gcs_clip_path="clips/c.mp4"))
    legacy.add("audios/talk.wav", bytes(5000))
    copied = ImportOptions(copy=True, bucket="films")
    for options, line in (
        (replace(copied, dry_run=True), "1 files (5.0 kB) to be copied, 0 files (0 bytes) already there"),
        (copied, "1 files (5.0 kB) copied, 0 files (0 bytes) already there"),
        (copied, "0 files (0 bytes) copied, 1 files (5.0 kB) already there"),
    ):
        assert execute_import(settings, legacy.root, options) == 0
        output = capsys.readouterr().out
        assert f"{line}\n1 rows name files in buckets or on other hosts, which are not copied\n" in output


def test_a_storage_that_is_away_ends_with_2_and_one_sentence(
    settings: Settings, legacy: LegacyLibrary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_video("talk.mp4")
    (tmp_path / "file").touch()
    away = settings.model_copy(update={"storage_url": f"{(tmp_path / 'file').as_uri()}/media"})
    assert execute_import(away, legacy.root, ImportOptions(copy=True)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("not a directory (0 of 1 videos are in; import again to go on)")


def test_a_storage_that_is_none_ends_with_2_and_one_sentence(
    settings: Settings, legacy: LegacyLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_video("talk.mp4")
    wrong = settings.model_copy(update={"storage_url": "s3://bucket"})
    assert execute_import(wrong, legacy.root, ImportOptions(copy=True)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("STORAGE_URL")


def test_long_lists_are_cut_in_the_summary(
    settings: Settings, legacy: LegacyLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_moments("talk", *({"start_time": n, "end_time": n + 1, "title": "A"} for n in range(25)))
    execute_import(settings, legacy.root, ImportOptions())
    output = capsys.readouterr().out
    assert "25 renamed" in output
    assert "… and 15 more" in output


def test_a_title_that_looks_like_markup_or_cannot_be_printed_is_no_harm(
    settings: Settings, legacy: LegacyLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_moments("talk", make_row(title="[/bold]\ud800"))
    assert execute_import(settings, legacy.root, ImportOptions()) == 1
    assert "[/bold]" in capsys.readouterr().out


def test_a_database_that_is_away_ends_with_2_and_one_sentence(
    legacy: LegacyLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_moments("talk", make_row())
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:1/none")
    assert execute_import(settings, legacy.root, ImportOptions()) == 2
    assert capsys.readouterr().err.startswith("Cannot connect to nobody@127.0.0.1:1/none")


def test_a_folder_that_is_no_library_ends_with_2_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(tmp_path / "gone")]) == 2
    assert f"{tmp_path / 'gone'} does not exist" in capsys.readouterr().err


def test_a_report_into_a_folder_that_is_not_there_ends_with_2(
    legacy: LegacyLibrary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.add_registry()
    assert main(["import", str(legacy.root), "--report", str(tmp_path / "gone" / "report.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err


@pytest.fixture
def report(tmp_path: Path) -> Iterator[ImportReport]:
    with ImportReport(tmp_path, dry_run=False) as report:
        report.row_counts["moments", "new"] = 1200
        yield report


def test_a_terminal_shows_a_bar_with_videos_and_rows(report: ImportReport) -> None:
    output = io.StringIO()
    bar = ImportProgressBars(Console(file=output, force_terminal=True, width=120))
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
    monkeypatch.setattr(library_import, "_SECONDS_BETWEEN_LINES", seconds)
    with caplog.at_level(logging.INFO, "app.importer"):
        log = ImportProgressLog()
        log.start_progress(2, 0)
        log.update_progress(report)
        log.stop_progress()
    assert caplog.messages == ["Importing 2 videos", *lines, "Went through 1 of 2 videos"]


def test_a_terminal_shows_a_bar_with_bytes_and_their_rate_where_files_are_copied(report: ImportReport) -> None:
    output = io.StringIO()
    bar = ImportProgressBars(Console(file=output, force_terminal=True, width=120))
    bar.start_progress(2, 4_000_000)
    bar.add_copied_bytes(1_500_000)
    bar.stop_progress()
    assert "1.5 MB of 4.0 MB" in output.getvalue()
    assert "/s" in output.getvalue()


def test_a_terminal_shows_no_second_bar_where_nothing_is_copied(report: ImportReport) -> None:
    output = io.StringIO()
    bar = ImportProgressBars(Console(file=output, force_terminal=True, width=120))
    bar.start_progress(2, 0)
    bar.stop_progress()
    assert "Copying" not in output.getvalue()


def test_a_log_gets_lines_while_one_long_file_is_copied(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_import, "_SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO, "app.importer"):
        log = ImportProgressLog()
        log.start_progress(2, 4_000_000)
        log.add_copied_bytes(1_500_000)
    assert caplog.messages[0] == "Importing 2 videos and copying 4.0 MB"
    assert caplog.messages[1].startswith("Imported 0 of 2 videos, 0 rows, copied 1.5 MB of 4.0 MB, ")
