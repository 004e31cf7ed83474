"""`--copy` where media is kept in a bucket of Google Cloud Storage."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from app.core.errors import StorageUnavailable
from app.storage.google_cloud import client
from tests.google_emulator import Emulator, FaultyProxy
from tests.importer.importer import Importer, counts
from tests.importer.legacy import LegacyLibrary, make_row
from tests.importer.processes import MEGABYTE, Imports, add_long_video_file
from tests.storage.stores import read_all


@pytest.fixture
async def cloud_importer(own_database_url: str, tmp_path: Path, bucket: str) -> AsyncIterator[Importer]:
    importer = Importer(own_database_url, tmp_path / "data", f"gs://{bucket}/media")
    yield importer
    await importer.storage.aclose()


def fill(legacy: LegacyLibrary) -> dict[str, Path]:
    """One video; return its files by the table whose row names them."""
    moment = make_row(2.0, 4.0)
    legacy.add_moments("talk", moment)
    return {
        "videos": legacy.add_video("talk.mp4"),
        "thumbnails": legacy.add_thumbnail("talk"),
        "clips": legacy.add_video(f"../moment_clips/talk_{moment['id']}_clip.mp4"),
    }


async def test_the_files_are_in_the_bucket_and_the_rows_name_them_there(
    cloud_importer: Importer, legacy: LegacyLibrary, bucket: str
) -> None:
    files = fill(legacy)
    report = await cloud_importer.run(legacy, copy=True)
    for table, path in files.items():
        url = (await cloud_importer.row(table))["cloud_url"]
        assert url.startswith(f"gs://{bucket}/media/{table}/talk/")
        assert await read_all(cloud_importer.storage, url) == path.read_bytes()
    assert (report["files"]["copied"], report["files"]["elsewhere"]) == (3, 0)


async def test_copying_again_into_a_bucket_sends_nothing(cloud_importer: Importer, legacy: LegacyLibrary) -> None:
    fill(legacy)
    await cloud_importer.run(legacy, copy=True)
    before = await cloud_importer.everything()
    for copy in (True, False, True):
        report = await cloud_importer.run(legacy, copy=copy)
        assert await cloud_importer.everything() == before
    assert (report["files"]["copied"], report["files"]["copied_before"]) == (0, 3)


async def test_copying_after_an_import_moves_the_addresses_into_the_bucket(
    cloud_importer: Importer, legacy: LegacyLibrary
) -> None:
    files = fill(legacy)
    await cloud_importer.run(legacy)
    assert counts(await cloud_importer.run(legacy, copy=True), "changed") == dict.fromkeys(sorted(files), 1)


async def test_where_nobody_can_tell_what_the_bucket_holds_its_rows_are_left_alone(
    cloud_importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fill(legacy)
    await cloud_importer.run(legacy, copy=True)
    before = await cloud_importer.everything()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    monkeypatch.setattr(client, "RETRY_SECONDS", 0.1)
    settings = cloud_importer.settings
    away = Importer(settings.database_url.get_secret_value(), tmp_path / "data", settings.storage_url)
    assert (await away.run(legacy))["complete"] is True
    assert await cloud_importer.everything() == before
    with pytest.raises(StorageUnavailable):
        await away.run(legacy, copy=True)
    await away.storage.aclose()


async def test_a_bucket_that_does_not_exist_is_one_sentence(
    own_database_url: str, tmp_path: Path, bucket: str, legacy: LegacyLibrary
) -> None:
    fill(legacy)
    importer = Importer(own_database_url, tmp_path / "data", f"gs://{bucket}-none/media")
    with pytest.raises(StorageUnavailable, match="bucket"):
        await importer.run(legacy, copy=True)
    assert await importer.rows("videos") == []
    await importer.storage.aclose()


def test_an_import_into_a_bucket_that_was_killed_is_completed_by_the_next_one(
    emulator: Emulator, credentials: Path, bucket: str, own_database_url: str, tmp_path: Path, legacy: LegacyLibrary
) -> None:
    video_files = {video: add_long_video_file(legacy, video, 40) for video in ("a", "b")}
    size = sum(video_file.stat().st_size for video_file in video_files.values())
    with FaultyProxy(emulator) as proxy:
        imports = Imports(
            tmp_path,
            legacy,
            own_database_url,
            STORAGE_URL=f"gs://{bucket}/media",
            STORAGE_EMULATOR_HOST=proxy.url,
            GOOGLE_APPLICATION_CREDENTIALS=str(credentials),
        )
        with imports.start() as process:
            deadline = time.monotonic() + 60
            while proxy.sent_bytes() < 24 * MEGABYTE:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            process.kill()
            process.wait()
        status, output, errors = imports.finish()
        assert status == 0, output + errors
        assert proxy.sent_bytes() <= size + 2 * 2 * 8 * MEGABYTE
    assert emulator.names_in(bucket) == [f"media/videos/{video}/{video}.mp4" for video in video_files]
    with psycopg.connect(own_database_url) as conn:
        urls = conn.execute("SELECT cloud_url FROM videos ORDER BY identifier").fetchall()
    assert urls == [(f"gs://{bucket}/media/videos/{video}/{video}.mp4",) for video in video_files]
    assert imports.drafts() == []
