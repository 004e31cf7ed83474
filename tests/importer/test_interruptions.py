"""Imports that copy and are stopped in the middle: real processes, killed, told to end, or out of room."""

import resource
import signal
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg
import pytest

from tests.importer.legacy import LegacyLibrary, make_row
from tests.importer.processes import MEGABYTE, Imports, add_long_video_file

VIDEOS = ("a", "b", "c")


def rows_of(database_url: str) -> dict[str, Path]:
    """Return each video's file, as its row names it."""
    with psycopg.connect(database_url) as conn:
        found = conn.execute("SELECT identifier, cloud_url FROM videos ORDER BY identifier").fetchall()
    return {identifier: Path(unquote(urlsplit(url).path)) for identifier, url in found}


@pytest.fixture
def video_files(legacy: LegacyLibrary) -> dict[str, Path]:
    for number, video in enumerate(VIDEOS):
        legacy.add_moments(video, make_row(number, number + 30.0))
        legacy.add_thumbnail(video)
    return {video: add_long_video_file(legacy, video, 48) for video in VIDEOS}


@pytest.fixture
def imports(tmp_path: Path, legacy: LegacyLibrary, own_database_url: str) -> Imports:
    return Imports(tmp_path, legacy, own_database_url)


def assert_complete(imports: Imports, database_url: str, video_files: dict[str, Path]) -> None:
    rows = rows_of(database_url)
    assert list(rows) == list(video_files)
    for video, video_file in video_files.items():
        assert rows[video].is_relative_to(imports.media)
        assert rows[video].read_bytes() == video_file.read_bytes()
    assert len(imports.files()) == 2 * len(video_files)
    assert imports.drafts() == []


def test_an_import_that_was_killed_is_completed_by_the_next_one(
    imports: Imports, own_database_url: str, video_files: dict[str, Path]
) -> None:
    with imports.start(halt_after=8) as process:
        imports.wait_for_a_draft(8 * MEGABYTE)
        process.kill()
        process.wait()
    assert imports.drafts() != []
    for path in rows_of(own_database_url).values():
        assert path.stat().st_size > 48 * MEGABYTE
    status, output, _ = imports.finish()
    assert status == 0, output
    assert_complete(imports, own_database_url, video_files)
    status, output, _ = imports.finish()
    assert "0 files (0 bytes) copied, 6 files" in output
    assert_complete(imports, own_database_url, video_files)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_import_that_is_asked_to_end_ends_at_once_and_can_be_completed(
    imports: Imports, own_database_url: str, video_files: dict[str, Path], number: signal.Signals
) -> None:
    with imports.start(halt_after=4) as process:
        imports.wait_for_a_draft(4 * MEGABYTE)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert imports.finish()[0] == 0
    assert_complete(imports, own_database_url, video_files)


def limit_files(megabytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (megabytes * MEGABYTE, megabytes * MEGABYTE))


def test_a_full_disk_stops_an_import_and_what_is_in_is_right(
    imports: Imports, own_database_url: str, legacy: LegacyLibrary
) -> None:
    video_files = {
        "a": legacy.add_video("a.mp4"),
        "b": add_long_video_file(legacy, "b", 24),
        "c": legacy.add_video("c.mp4"),
    }
    for video in video_files:
        legacy.add_thumbnail(video)
    status, output, errors = imports.finish(partial(limit_files, 16))
    assert (status, output) == (2, "")
    sentence = errors.splitlines()[-1]
    assert sentence.startswith("There is no room for the file: ")
    assert sentence.endswith(" of 3 videos are in; import again to go on)")
    assert "b" not in rows_of(own_database_url)
    for video, path in rows_of(own_database_url).items():
        assert path.read_bytes() == video_files[video].read_bytes()
    assert imports.finish()[0] == 0
    assert_complete(imports, own_database_url, video_files)


def test_a_storage_that_goes_away_in_the_middle_stops_an_import(
    imports: Imports, own_database_url: str, video_files: dict[str, Path]
) -> None:
    with imports.start(halt_after=4) as process:
        imports.wait_for_a_draft(4 * MEGABYTE)
        imports.media.rename(imports.media.with_name("away"))
        imports.media.touch()
        imports.go_on()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.splitlines()[-1].endswith(" of 3 videos are in; import again to go on)")
    imports.media.unlink()
    imports.media.with_name("away").rename(imports.media)
    assert imports.finish()[0] == 0
    assert_complete(imports, own_database_url, video_files)
