"""Uploads to a bucket and deletions from it, against a real emulator."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.core.config import Settings
from app.database import Database, close_db, get_connection, init_db
from app.repositories import VideoRepository
from app.services.deletion import DeletionOptions, delete_video
from app.services.uploads import UploadDetails, open_video_upload
from app.storage import Storage, audio_folder_key, clip_folder_key, open_storage, video_folder_key
from tests.factories import make_clip, make_moment
from tests.media.movies import make_movie


@pytest.fixture
def settings(tmp_path: Path, bucket: str, own_database_url: str) -> Settings:
    return Settings(database_url=own_database_url, data_dir=tmp_path / "data", storage_url=f"gs://{bucket}/media")


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


async def upload(database: Database, storage: Storage, movie: bytes) -> None:
    async with open_video_upload(database, storage, 10**9) as upload:
        await upload.write_chunk(movie)
        await upload.store_as_video(UploadDetails(identifier="talk"))


async def test_what_was_uploaded_to_a_bucket_is_deleted_there(
    database: Database, storage: Storage, redis_url: str, tmp_path: Path
) -> None:
    movie = make_movie(tmp_path / "movie.mp4")
    await upload(database, storage, movie.read_bytes())
    await storage.put(f"{audio_folder_key('talk')}/sound.wav", movie)
    clip = await storage.put(f"{clip_folder_key('talk')}/clip.mp4", movie)
    async with database.connect() as conn:
        video = await VideoRepository(conn).get_by_identifier("talk")
        assert video is not None
        assert video.cloud_url.startswith("gs://")
        await make_clip(conn, await make_moment(conn, video_id=video.id), cloud_url=clip.url)

    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        skips = DeletionOptions(skip_gcs_clips=True, skip_gcs_audio=True)
        kept = await delete_video(database, storage, redis, "talk", skips)
        deletion = await delete_video(database, storage, redis, "talk", DeletionOptions())
    assert not kept.bucket_files
    assert deletion.bucket_files == {"video": 1, "audio": 1, "clip": 1}
    for folder in (video_folder_key, audio_folder_key, clip_folder_key):
        assert await storage.list_files(folder("talk")) == []
    assert list(storage.incoming_path.iterdir()) == []
