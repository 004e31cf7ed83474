"""The audio of a run's video: extracted once, stored once, and made again where another machine had it."""

import asyncio
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import RunLost, StageFailed, StorageFull, VideoDeleted
from app.media.audio import wav_duration
from app.pipeline.context import RunContext
from app.pipeline.files import AUDIO_NAME, get_local_audio
from app.pipeline.stages import audio, audio_upload
from app.repositories import VideoRepository
from app.storage import find_audio_file
from tests.media.movies import make_movie, make_movie_with_audio
from tests.pipeline.contexts import make_context, take_over


def make_video_file(folder: Path, name: str = "talk", **movie: Any) -> Mapping[str, Any]:
    """Columns of a video whose video is in the library."""
    video_file = make_movie(folder / "library" / f"{name}.mp4", **movie)
    return {"identifier": name, "cloud_url": video_file.as_uri()}


async def run_stages(context: RunContext) -> None:
    await audio.run_stage(context)
    await audio_upload.run_stage(context)


async def stored_audio(context: RunContext) -> bytes:
    with context.storage.open_blocking(await find_audio_file(context.storage, context.run.video)) as file:
        return file.read()


async def test_the_audio_of_a_video_is_extracted_and_stored(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path, video=make_video_file(tmp_path, seconds=2)) as context:
        assert await audio.skip_reason(context) is None
        assert await audio.run_stage(context) == {"seconds": pytest.approx(2, abs=0.05)}
        assert await audio_upload.skip_reason(context) is None
        await audio_upload.run_stage(context)
        assert (tmp_path / "media" / "audio" / "talk" / "talk.wav").is_file()
        assert await stored_audio(context) == (context.folder / AUDIO_NAME).read_bytes()


async def test_the_progress_of_both_stages_ends_at_a_hundred(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path, video=make_video_file(tmp_path)) as context:
        await audio.run_stage(context)
        assert context.progress == {"percentage": 100}
        result = await audio_upload.run_stage(context)
        await asyncio.sleep(0)
        size = result["bytes"]
        assert context.progress == {"bytes_uploaded": size, "total_bytes": size, "percentage": 100}


async def test_audio_that_is_stored_is_neither_extracted_nor_stored_again(
    own_database_url: str, tmp_path: Path
) -> None:
    async with make_context(own_database_url, tmp_path, video=make_video_file(tmp_path)) as context:
        await run_stages(context)
        assert await audio.skip_reason(context) == "Audio file already exists"
        assert await audio_upload.skip_reason(context) == "Audio file is already stored"


async def test_the_audio_of_an_imported_library_is_audio_that_is_there(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path, video=make_video_file(tmp_path)) as context:
        wav = tmp_path / "library" / "audios" / "talk.wav"
        wav.parent.mkdir()
        with wave.open(str(wav), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
        assert await audio.skip_reason(context) == "Audio file already exists"
        assert await audio_upload.skip_reason(context) == "Audio file is already stored"


async def test_audio_in_the_runs_folder_is_not_extracted_again(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path, video=make_video_file(tmp_path)) as context:
        await audio.run_stage(context)
        (tmp_path / "library" / "talk.mp4").unlink()
        await run_stages(await take_over(context))
        assert wav_duration(await get_local_audio(context)) > 0.9


async def test_a_machine_that_takes_the_run_over_extracts_the_audio_again(
    own_database_url: str, tmp_path: Path
) -> None:
    async with make_context(own_database_url, tmp_path, video=make_video_file(tmp_path)) as context:
        await audio.run_stage(context)
        other = await take_over(context)
        (context.folder / AUDIO_NAME).unlink()
        await audio_upload.run_stage(other)
        assert len(await stored_audio(context)) > 16_000


async def test_a_video_whose_file_is_missing_is_reported(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path) as context:
        with pytest.raises(StageFailed, match="The file of the video is missing"):
            await audio.run_stage(context)


async def test_audio_for_which_the_disk_has_no_room_is_not_begun(
    own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = {**make_video_file(tmp_path, seconds=2), "duration_seconds": 2.0}
    monkeypatch.setattr("app.storage.file_system.measure_disk", lambda folder: (64_000, 100_000))
    async with make_context(own_database_url, tmp_path, video=video) as context:
        with pytest.raises(StorageFull, match="no room for the audio of the video: 64 kB are needed, and 59 kB"):
            await audio.run_stage(context)
        assert list(context.folder.iterdir()) == []


async def test_a_video_that_is_longer_than_the_setting_allows_is_reported(
    own_database_url: str, tmp_path: Path
) -> None:
    settings = {"max_video_hours": 0.0005}
    async with make_context(
        own_database_url, tmp_path, video=make_video_file(tmp_path, seconds=2), settings=settings
    ) as context:
        with pytest.raises(StageFailed, match=r"longer than 0\.0005 hours, the limit that MAX_VIDEO_HOURS sets"):
            await audio.run_stage(context)


async def test_a_video_without_audio_is_reported(own_database_url: str, tmp_path: Path) -> None:
    video = make_video_file(tmp_path, audio_codec=None)
    async with make_context(own_database_url, tmp_path, video=video) as context:
        with pytest.raises(StageFailed, match="The video has no audio"):
            await audio.run_stage(context)


async def test_the_audio_of_a_video_that_is_deleted_meanwhile_is_not_left(
    own_database_url: str, tmp_path: Path
) -> None:
    async with make_context(own_database_url, tmp_path, video=make_video_file(tmp_path)) as context:
        await audio.run_stage(context)
        async with context.database.connect() as conn:
            await VideoRepository(conn).delete(context.run.video_id)
        with pytest.raises(VideoDeleted):
            await audio_upload.run_stage(context)
        assert await context.storage.list_files("audio/talk") == []


async def test_one_who_lost_the_run_leaves_the_audio_to_its_new_owner(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path, video=make_video_file(tmp_path)) as context:
        await audio.run_stage(context)
        await take_over(context)
        with pytest.raises(RunLost):
            await audio_upload.run_stage(context)
        assert len(await context.storage.list_files("audio/talk")) == 1


async def test_extraction_that_is_cancelled_ends_and_leaves_nothing(own_database_url: str, tmp_path: Path) -> None:
    video_file = make_movie_with_audio(
        tmp_path / "library" / "long.mkv", 600, [(0, 600)], "pcm_u8", 8000, "mono", False
    )
    video = {"identifier": "long", "cloud_url": video_file.as_uri()}
    async with make_context(own_database_url, tmp_path, video=video) as context:
        working = asyncio.create_task(_as_coroutine(context))
        while context.progress is None:
            assert not working.done()
            await asyncio.sleep(0.005)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert list(context.folder.iterdir()) == []


async def _as_coroutine(context: RunContext) -> None:
    await audio.run_stage(context)


async def test_a_video_in_a_bucket_is_read_there_and_its_audio_stored_there(
    own_database_url: str, tmp_path: Path, bucket: str
) -> None:
    settings = {"storage_url": f"gs://{bucket}/media"}
    video_file = make_movie(tmp_path / "video.mp4", seconds=2)
    async with make_context(own_database_url, tmp_path, settings=settings) as context:
        stored = await context.storage.put("videos/talk/video.mp4", video_file)
        async with context.database.connect() as conn:
            await VideoRepository(conn).update(context.run.video_id, cloud_url=stored.url)
        await run_stages(context)
        url = await find_audio_file(context.storage, context.run.video)
        assert url.startswith(f"gs://{bucket}/media/audio/")
        assert [path.name for path in context.folder.iterdir()] == [AUDIO_NAME]
        assert await stored_audio(context) == (context.folder / AUDIO_NAME).read_bytes()
