"""What an import loses where something fails, and what it says then."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable
from app.database import Connection, open_async_connection
from app.importer import importing, video_rows
from app.importer.importing import ImportOptions, import_library
from app.importer.legacy_files import NotALibrary
from app.importer.moment_rows import VideoWriteResult
from app.importer.prepared_videos import PreparedVideo
from app.importer.video_rows import write_video
from app.repositories import MomentRepository, VideoRepository
from app.storage import open_storage
from tests.conftest import Databases
from tests.importer.importer import Importer, Silence, counts, entries
from tests.importer.legacy import (
    LegacyLibrary,
    make_row,
)
from tests.retries import remove_waits


async def test_a_video_that_fails_is_lost_alone(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    for video in ("a", "b", "c"):
        legacy.add_transcript(video)
        legacy.add_moments(video, make_row(0, 30, title=video))
    copy = MomentRepository.insert_many

    async def fail(self: MomentRepository, moments: Any) -> int:
        rows = list(moments)
        if any(row["title"] == "b" for row in rows):
            raise RuntimeError("out of luck")
        return await copy(self, rows)

    monkeypatch.setattr(MomentRepository, "insert_many", fail)
    report = await importer.run(legacy)
    assert [row["identifier"] for row in await importer.rows("videos", "identifier")] == ["a", "c"]
    assert [(entry["video"], entry["reason"]) for entry in entries(report, "failed")] == [("b", "out of luck")]
    assert (report["complete"], counts(report, "new")["transcripts"]) == (False, 2)


async def test_a_connection_that_breaks_costs_nothing(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        legacy.add_moments(f"v{number}", make_row(number, number + 30.0))
    copy = MomentRepository.insert_many
    broken: list[bool] = []

    async def break_once(self: MomentRepository, moments: Any) -> int:
        if not broken:
            broken.append(True)
            async with importer.connection() as other:
                pid = self._conn.info.backend_pid
                await other.execute("SELECT pg_terminate_backend(%s)", [pid])
        return await copy(self, moments)

    monkeypatch.setattr(MomentRepository, "insert_many", break_once)
    report = await importer.run(legacy)
    assert broken
    assert report["complete"] is True
    assert len(await importer.rows("moments")) == 6


async def test_without_a_database_there_is_one_sentence(legacy: LegacyLibrary) -> None:
    legacy.add_moments("talk", make_row())
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable, match="Cannot connect"):
        await import_library(settings, open_storage(settings), legacy.root, ImportOptions(), Silence())


async def test_without_tables_there_is_one_sentence(legacy: LegacyLibrary, databases: Databases) -> None:
    legacy.add_moments("talk", make_row())
    settings = Settings(database_url=databases.create())
    with pytest.raises(DatabaseUnavailable, match="not migrated"):
        await import_library(settings, open_storage(settings), legacy.root, ImportOptions(), Silence())


async def test_a_folder_that_is_no_library_is_refused(importer: Importer, tmp_path: Path) -> None:
    with pytest.raises(NotALibrary):
        await import_library(importer.settings, importer.storage, tmp_path / "gone", ImportOptions(), Silence())


def add_thirty(legacy: LegacyLibrary) -> list[str]:
    names = [f"v{number:02}" for number in range(30)]
    for number, name in enumerate(names):
        legacy.add_moments(name, make_row(number, number + 30.0))
    return names


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    remove_waits(monkeypatch, "app.importer.video_rows._WRITE_POLICY", calls=3)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("error", [psycopg.errors.AdminShutdown, psycopg.errors.DiskFull])
async def test_a_database_that_goes_away_for_good_fails_every_video_that_is_left(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch, error: type[psycopg.Error]
) -> None:
    names = add_thirty(legacy)
    tries: list[str] = []

    async def fail(conn: Connection, prepared: PreparedVideo, *_: object) -> None:
        tries.append(prepared.identifier)
        raise error("out of luck")

    monkeypatch.setattr(video_rows, "write_video", fail)
    report = await importer.run(legacy)
    assert [entry["video"] for entry in entries(report, "failed")] == names
    assert {entry["reason"] for entry in entries(report, "failed")} == {"The database is not available: out of luck"}
    assert len(set(tries)) < 30


@pytest.mark.usefixtures("impatient")
async def test_a_database_that_lets_nobody_in_fails_every_video_and_says_why(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = add_thirty(legacy)
    opened: list[Settings] = []

    def let_one_in(settings: Settings) -> AbstractAsyncContextManager[Connection]:
        opened.append(settings)
        return open_async_connection(
            settings if len(opened) == 1 else Settings(database_url="postgresql://nobody@127.0.0.1:1/none")
        )

    for module in (importing, video_rows):
        monkeypatch.setattr(module, "open_async_connection", let_one_in)
    report = await importer.run(legacy)
    assert [entry["video"] for entry in entries(report, "failed")] == names
    assert all("Connection refused" in entry["reason"] for entry in entries(report, "failed"))
    assert len(opened) < 30


@pytest.mark.usefixtures("impatient")
async def test_a_video_whose_row_is_locked_is_lost_alone(importer: Importer, legacy: LegacyLibrary) -> None:
    names = add_thirty(legacy)
    importer.settings = importer.settings.model_copy(update={"database_lock_timeout": 0.5})
    async with importer.connection() as conn, conn.transaction(force_rollback=True):
        await VideoRepository(conn).create(identifier="v03", cloud_url="gs://films/v03.mp4")
        report = await importer.run(legacy)
    (failed,) = entries(report, "failed")
    assert failed["video"] == "v03"
    assert failed["reason"].startswith("another transaction held its rows for too long")
    assert [row["identifier"] for row in await importer.rows("videos", "identifier")] == [
        name for name in names if name != "v03"
    ]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (psycopg.errors.QueryCanceled, "PostgreSQL stopped one of its statements: out of luck"),
        (psycopg.errors.DeadlockDetected, "another transaction and its own waited for each other: out of luck"),
        (psycopg.errors.SerializationFailure, "another transaction changed its rows at the same time: out of luck"),
        (psycopg.OperationalError, "the connection broke while it was written: out of luck"),
    ],
)
async def test_a_video_that_the_database_gives_up_is_lost_alone_and_the_report_says_why(
    importer: Importer,
    legacy: LegacyLibrary,
    monkeypatch: pytest.MonkeyPatch,
    error: type[psycopg.Error],
    reason: str,
) -> None:
    add_thirty(legacy)

    async def fail(conn: Connection, prepared: PreparedVideo, *rest: Any) -> VideoWriteResult:
        if prepared.identifier == "v03":
            raise error("out of luck")
        return await write_video(conn, prepared, *rest)

    monkeypatch.setattr(video_rows, "write_video", fail)
    report = await importer.run(legacy)
    assert [(entry["video"], entry["reason"]) for entry in entries(report, "failed")] == [("v03", reason)]
    assert counts(report, "new")["videos"] == 29


@pytest.mark.usefixtures("impatient")
async def test_a_video_may_take_longer_than_a_statement_of_the_application(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    legacy.add_moments("talk", make_row())
    url = f"{importer.settings.database_url.get_secret_value()}?options=-c%20statement_timeout%3D100"
    importer.settings = Settings(database_url=url)

    async def write_slowly(conn: Connection, *rest: Any) -> VideoWriteResult:
        await conn.execute("SELECT pg_sleep(0.2)")
        return await write_video(conn, *rest)

    monkeypatch.setattr(video_rows, "write_video", write_slowly)
    assert (await importer.run(legacy))["complete"] is True
