"""Deletions that are interrupted, fail halfway, or race with an upload of the same identifier."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from redis.asyncio import Redis

from app.core.config import Settings
from app.core.errors import Conflict, RedisUnavailable, StorageUnavailable, VideoNotFound
from app.database import Connection, Database, close_db, get_connection, init_db, open_async_connection
from app.repositories import VideoRepository
from app.services import media
from app.services.deletion import DeletionOptions, delete_video
from app.services.uploads import UploadDetails, open_video_upload
from app.storage import Storage, open_storage, video_folder_key
from tests.factories import make_video
from tests.media.movies import make_movie

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(tmp_path: Path, own_database_url: str) -> Settings:
    return Settings(
        database_url=own_database_url, data_dir=tmp_path / "data", storage_url=(tmp_path / "media").as_uri()
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    await init_db(settings)
    yield Database(get_connection)
    await close_db()


@pytest.fixture
async def storage(settings: Settings) -> AsyncIterator[Storage]:
    storage = open_storage(settings)
    yield storage
    await storage.aclose()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        yield redis


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[Connection]:
    """A connection of somebody else."""
    async with open_async_connection(settings) as conn:
        yield conn


def files_in(storage: Storage) -> list[Path]:
    return [path for path in storage.incoming_path.parent.rglob("*") if path.is_file()]


async def keep(storage: Storage, name: str, tmp_path: Path) -> str:
    (tmp_path / "source").write_bytes(b"film")
    return (await storage.put(f"{video_folder_key('talk')}/{name}", tmp_path / "source")).url


async def eventually_stored(storage: Storage, count: int = 1) -> str:
    """Wait until so many files lie in the video's folder and return the URL of one."""
    async with asyncio.timeout(60):
        while len(files := await storage.list_files(video_folder_key("talk"))) != count:  # noqa: ASYNC110  no event is set
            await asyncio.sleep(0.01)
    return files[0].url


async def upload(database: Database, storage: Storage, movie: bytes) -> str:
    async with open_video_upload(database, storage, 10**9) as upload:
        await upload.write_chunk(movie)
        return await upload.store_as_video(UploadDetails(identifier="talk"))


DYING = """
import asyncio, os
from redis.asyncio import Redis
from app.core.config import Settings
from app.database import Database, close_db, get_connection, init_db
from app.services.deletion import DeletionOptions
from app.services.deletion import delete_video
from app.storage import Storage, open_storage

async def die(self, url):
    os._exit(9)

Storage.delete = die

async def main():
    settings = Settings()
    await init_db(settings)
    await delete_video(Database(get_connection), open_storage(settings), Redis(), "talk", DeletionOptions())

asyncio.run(main())
"""


async def test_what_a_killed_deletion_has_left_is_deleted_by_the_next_one(
    database: Database, storage: Storage, redis: Redis, settings: Settings, tmp_path: Path
) -> None:
    async with database.connect() as conn:
        await make_video(conn, identifier="talk", cloud_url=await keep(storage, "a.mp4", tmp_path))
    variables = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "STORAGE_URL": str(settings.storage_url),
        "DATA_DIR": str(settings.data_dir),
        "PYTHONPATH": str(_ROOT),
    }
    dead = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", DYING], env=variables, capture_output=True, timeout=300
    )
    assert dead.returncode == 9, dead.stderr
    async with database.connect() as conn:
        assert await VideoRepository(conn).count() == 0
    assert len(files_in(storage)) == 1
    deletion = await delete_video(database, storage, redis, "talk", DeletionOptions())
    assert deletion.local_files["video"] == 1
    assert files_in(storage) == []
    with pytest.raises(VideoNotFound):
        await delete_video(database, storage, redis, "talk", DeletionOptions())


async def test_a_file_that_cannot_be_deleted_is_reported_and_deleted_by_the_next_deletion(
    database: Database, storage: Storage, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(url: str) -> bool:
        raise StorageUnavailable("The bucket does not answer")

    async with database.connect() as conn:
        await make_video(conn, identifier="talk", cloud_url=await keep(storage, "a.mp4", tmp_path))
    with monkeypatch.context() as broken:
        broken.setattr(storage, "delete", fail)
        first = await delete_video(database, storage, redis, "talk", DeletionOptions())
        again = await delete_video(database, storage, redis, "talk", DeletionOptions())
    assert first.errors == again.errors == ["The video's file could not be deleted: The bucket does not answer"]
    last = await delete_video(database, storage, redis, "talk", DeletionOptions())
    assert (last.errors, last.local_files["video"], files_in(storage)) == ([], 1, [])


async def test_a_deleted_video_is_not_404_while_redis_may_hold_its_keys(database: Database, storage: Storage) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with database.connect() as conn:
        await make_video(conn, identifier="talk")
    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Redis(port=port, socket_timeout=300) as silent, asyncio.timeout(100):
        first = await delete_video(database, storage, silent, "talk", DeletionOptions())
        with pytest.raises(RedisUnavailable):
            await delete_video(database, storage, silent, "talk", DeletionOptions())
        with pytest.raises(VideoNotFound):
            await delete_video(database, storage, silent, "talk", DeletionOptions(skip_redis=True))
    assert first.errors == ["The live state could not be deleted: Redis is not available"]


async def test_a_leftover_holds_no_connection_for_long_where_the_storage_is_slow(
    database: Database, storage: Storage, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(url: str) -> bool:
        return await asyncio.Future()

    await keep(storage, "a.mp4", tmp_path)
    monkeypatch.setattr(storage, "delete", never)
    monkeypatch.setattr(media, "_LOCKED_STORAGE_SECONDS", 0.1)
    async with asyncio.timeout(60):
        deletion = await delete_video(database, storage, redis, "talk", DeletionOptions())
    assert deletion.errors == ["The video's file could not be deleted: The storage takes too long to answer"]


async def test_an_upload_holds_no_connection_for_long_where_the_storage_is_slow(
    database: Database, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(url: str) -> None:
        await asyncio.Future()

    movie = make_movie(tmp_path / "movie.mp4").read_bytes()
    monkeypatch.setattr(storage, "stat", never)
    monkeypatch.setattr(media, "_LOCKED_STORAGE_SECONDS", 0.1)
    async with asyncio.timeout(60):
        with pytest.raises(StorageUnavailable, match="takes too long"):
            await upload(database, storage, movie)
    async with database.connect() as conn:
        assert await VideoRepository(conn).count() == 0
    assert files_in(storage) == []


async def test_a_storage_that_cannot_be_listed_fails_before_anything_is_deleted(
    database: Database, storage: Storage, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(folder: str) -> None:
        raise StorageUnavailable("The bucket does not answer")

    async with database.connect() as conn:
        await make_video(conn, identifier="talk", cloud_url=await keep(storage, "a.mp4", tmp_path))
        monkeypatch.setattr(storage, "list_files", fail)
        with pytest.raises(StorageUnavailable):
            await delete_video(database, storage, redis, "talk", DeletionOptions())
        assert await VideoRepository(conn).count() == 1
    assert len(files_in(storage)) == 1


async def test_the_file_of_a_video_that_is_just_being_added_is_not_taken_for_a_leftover(
    database: Database, storage: Storage, redis: Redis, other: Connection, tmp_path: Path
) -> None:
    url = await keep(storage, "new.mp4", tmp_path)
    async with other.transaction():
        await VideoRepository(other).lock_video_identifier("talk")
        await make_video(other, identifier="talk", cloud_url=url)
        deletion = asyncio.create_task(delete_video(database, storage, redis, "talk", DeletionOptions()))
        await asyncio.sleep(0.3)
        assert not deletion.done()
    with pytest.raises(VideoNotFound):
        await deletion
    assert (await storage.stat(url)).size == 4


async def test_an_upload_whose_file_was_taken_for_a_leftover_makes_no_row(
    database: Database, storage: Storage, other: Connection, tmp_path: Path
) -> None:
    movie = make_movie(tmp_path / "movie.mp4").read_bytes()
    async with other.transaction():
        await VideoRepository(other).lock_video_identifier("talk")
        uploading = asyncio.create_task(upload(database, storage, movie))
        assert await storage.delete(await eventually_stored(storage))
    with pytest.raises(Conflict, match="deleted at the same time"):
        await uploading
    assert await VideoRepository(other).count() == 0
    assert await upload(database, storage, movie) == "talk"


async def test_an_upload_that_is_cancelled_before_its_row_leaves_no_file(
    database: Database, storage: Storage, other: Connection, tmp_path: Path
) -> None:
    movie = make_movie(tmp_path / "movie.mp4").read_bytes()
    async with other.transaction():
        await VideoRepository(other).lock_video_identifier("talk")
        uploading = asyncio.create_task(upload(database, storage, movie))
        await eventually_stored(storage)
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
    assert files_in(storage) == []
    assert await VideoRepository(other).count() == 0


async def test_uploads_of_one_name_at_once_never_share_a_file(
    database: Database, storage: Storage, other: Connection, tmp_path: Path
) -> None:
    movies = [make_movie(tmp_path / f"{number}.mp4", seconds=number).read_bytes() for number in (1, 2)]
    async with other.transaction():
        await VideoRepository(other).lock_video_identifier("talk")
        uploads = [asyncio.create_task(upload(database, storage, movie)) for movie in movies]
        await eventually_stored(storage, count=2)
    outcomes = await asyncio.gather(*uploads, return_exceptions=True)
    winner = outcomes.index("talk")
    assert isinstance(outcomes[1 - winner], Conflict)
    (left,) = files_in(storage)
    assert left.read_bytes() == movies[winner]


class ForgetfulDatabase(Database):
    """Loses the connection after what was done on it, at the second time: the answer to a commit does not come."""

    times = 0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        async with super().connect() as conn:
            yield conn
        self.times += 1
        if self.times == 2:
            raise psycopg.OperationalError("the connection is lost")


async def test_a_row_whose_commit_was_not_confirmed_keeps_its_file(
    database: Database, storage: Storage, tmp_path: Path
) -> None:
    movie = make_movie(tmp_path / "movie.mp4").read_bytes()
    with pytest.raises(psycopg.OperationalError):
        await upload(ForgetfulDatabase(get_connection), storage, movie)
    async with database.connect() as conn:
        video = await VideoRepository(conn).get_by_identifier("talk")
    assert video is not None
    assert (await storage.stat(video.cloud_url)).size == len(movie)


async def test_nothing_can_be_added_to_a_video_while_it_is_deleted(
    database: Database, storage: Storage, redis: Redis, other: Connection
) -> None:
    async with database.connect() as conn:
        video = await make_video(conn, identifier="talk")
    async with other.transaction():  # a clip, a thumbnail or a moment that is just being written
        await other.execute(
            "INSERT INTO thumbnails (video_id, cloud_url) VALUES (%(id)s, 'file:///x.jpg')", {"id": video.id}
        )
        deletion = asyncio.create_task(delete_video(database, storage, redis, "talk", DeletionOptions()))
        await asyncio.sleep(0.3)
        assert not deletion.done()
    assert [file.url for file in (await deletion).rows.files] == [video.cloud_url, "file:///x.jpg"]


async def test_the_playable_copy_goes_with_its_video(
    database: Database, storage: Storage, redis: Redis, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(b"film")
    copies = [(await storage.put(f"playable/talk/{name}.mp4", tmp_path / "source")).url for name in ("named", "left")]
    async with database.connect() as conn:
        video = await make_video(conn, identifier="talk", cloud_url=await keep(storage, "talk.avi", tmp_path))
        await conn.execute(
            "INSERT INTO library.video_files (video_id, source_url, status, playable_url) VALUES (%s, %s, 'ready', %s)",
            [video.id, video.cloud_url, copies[0]],
        )
    await delete_video(database, storage, redis, "talk", DeletionOptions())
    assert files_in(storage) == []
