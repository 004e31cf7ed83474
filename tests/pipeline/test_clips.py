"""The clips of a run: which are cut, from where to where, how they are stored, and what becomes of older ones."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import RunLost, StageFailed, StorageFull, StorageUnavailable, VideoDeleted
from app.media.probe import probe_media
from app.models import Clip, Moment
from app.models.stages import RunType
from app.pipeline.context import RunContext
from app.pipeline.moment_refiner import load_clip_for_model
from app.pipeline.stages import clip_upload, clips
from app.pipeline.stages.clips import plan_clips
from app.repositories import ClipRepository, MomentRepository, RunRepository, ThumbnailRepository, VideoRepository
from app.storage.file_system import path_from_url
from tests.factories import make_clip, make_moment, make_thumbnail, make_transcript
from tests.media.movies import FRAME_RATE, make_movie, make_slides
from tests.pipeline.contexts import make_context, take_over
from tests.pipeline.scripted_models import ScriptedFinder, ScriptedModels, talk

SECONDS = 20
LOCAL = ScriptedModels(finder=ScriptedFinder(is_local=True))
OUTSIDE = "The moment ends at 95.0 seconds, after the end of the video at 20.0 seconds"
Times = tuple[float, float]


@asynccontextmanager
async def clipping(
    database_url: str, folder: Path, *moments: Times, identifier: str = "talk", **values: Any
) -> AsyncIterator[tuple[RunContext, list[Moment]]]:
    """A run over a video of 20 seconds in the library with these moments."""
    video_file = folder / "library" / f"{identifier}.mp4"
    if not video_file.exists():
        await asyncio.to_thread(make_movie, video_file, SECONDS)
    video = {"identifier": identifier, "cloud_url": video_file.as_uri(), "duration_seconds": float(SECONDS)}
    async with make_context(database_url, folder, **{"video": video, "models": LOCAL, **values}) as context:
        async with context.database.connect() as conn:
            made = [await make_original(conn, context, *times) for times in moments]
        yield context, made


async def make_original(conn: Any, context: RunContext, start: float, end: float, **values: Any) -> Moment:
    return await make_moment(conn, video_id=context.run.video_id, start_time=start, end_time=end, **values)


async def run_stages(context: RunContext) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return await clips.run_stage(context), await clip_upload.run_stage(context)


async def reasons(context: RunContext) -> tuple[str | None, str | None]:
    return await clips.skip_reason(context), await clip_upload.skip_reason(context)


async def clip_of(context: RunContext, moment: Moment) -> Clip | None:
    async with context.database.connect() as conn:
        return await ClipRepository(conn).get_by_moment(moment.id)


async def stored_clip(context: RunContext, moment: Moment) -> Clip:
    """The row of a clip whose file is there and plays for the time that the row says."""
    clip = await clip_of(context, moment)
    assert clip is not None
    info = await asyncio.to_thread(probe_media, path_from_url(clip.cloud_url))
    assert info.duration_seconds == pytest.approx(clip.duration_seconds, abs=1 / FRAME_RATE)
    return clip


async def stored_files(context: RunContext) -> Sequence[str]:
    return [file.url for file in await context.storage.list_files("clips/talk")]


async def end(context: RunContext) -> None:
    async with context.database.connect() as conn:
        await RunRepository(conn).update(context.run.id, status="completed")


async def test_each_moment_gets_its_clip(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5), (8, 12.5)) as (context, moments):
        assert await reasons(context) == (None, None)
        assert await run_stages(context) == (
            {"total": 2, "clips": 2, "failed": 0},
            {"total": 2, "clips": 2, "failed": 0},
        )
        for moment in moments:
            clip = await stored_clip(context, moment)
            assert clip.cloud_url.startswith((tmp_path / "media" / "clips" / "talk" / "talk_").as_uri())
            assert f"_{moment.identifier}_" in clip.cloud_url
            assert clip.cloud_url.endswith("_clip.mp4")
            assert (clip.start_time, clip.end_time) == (0, SECONDS)
            assert (clip.padding_left, clip.padding_right) == (moment.start_time, SECONDS - moment.end_time)
            assert (clip.format, clip.video_codec, clip.audio_codec, clip.resolution) == ("mp4", "h264", "aac", "64x48")
            assert clip.file_size_kb


async def test_clips_for_which_the_disk_has_no_room_are_not_begun(
    own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.file_system.measure_disk", lambda folder: (1_000_000, 1_000_000))
    async with clipping(own_database_url, tmp_path, (2, 5)) as (context, _):
        with pytest.raises(StorageFull, match="no room for the clips of the video"):
            await clips.run_stage(context)
        assert [path for path in context.folder.rglob("*") if path.is_file()] == []


async def test_a_clip_begins_and_ends_with_words(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5)) as (context, [moment]):
        words = [{"word": "word", "start": start, "end": start + 0.5} for start in (0.75, 4.5, 17.1)]
        async with context.database.connect() as conn:
            await make_transcript(conn, video_id=context.run.video_id, word_timestamps=words)
        await run_stages(context)
        clip = await stored_clip(context, moment)
        assert (clip.start_time, clip.end_time) == (0.75, 17.6)


async def test_a_clip_begins_and_ends_with_segments_where_no_words_are_known(
    own_database_url: str, tmp_path: Path
) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5)) as (context, [moment]):
        segments = talk(SECONDS - 2)["segment_timestamps"]
        async with context.database.connect() as conn:
            await make_transcript(
                conn, video_id=context.run.video_id, word_timestamps=[], segment_timestamps=segments[1:]
            )
        await run_stages(context)
        clip = await stored_clip(context, moment)
        assert (clip.start_time, clip.end_time) == (1, 17.8)


async def test_a_clip_of_audio_is_an_m4a(own_database_url: str, tmp_path: Path) -> None:
    video_file = await asyncio.to_thread(
        make_movie, tmp_path / "library" / "talk.mp3", SECONDS, None, "libmp3lame", "mp3"
    )
    video = {"identifier": "talk", "cloud_url": video_file.as_uri(), "duration_seconds": float(SECONDS)}
    described = {**video, "video_codec": None, "audio_codec": "mp3", "resolution": None, "frame_rate": None}
    async with clipping(own_database_url, tmp_path, (2, 5), video=described) as (context, moments):
        await run_stages(context)
        clip = await stored_clip(context, moments[0])
        assert (clip.format, clip.video_codec, clip.audio_codec, clip.resolution) == ("m4a", None, "aac", None)
        assert clip.cloud_url.endswith("_clip.m4a")
        assert await load_clip_for_model(context, moments[0], clip) is None


async def test_refined_moments_get_no_clips(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5)) as (context, [moment]):
        async with context.database.connect() as conn:
            refined = await make_original(conn, context, 3, 4, is_refined=True, parent_id=moment.id)
        result, _ = await run_stages(context)
        assert result["total"] == 1
        assert await clip_of(context, refined) is None


async def test_progress_counts_clips_and_then_bytes(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5), (8, 12)) as (context, _):
        await clips.run_stage(context)
        assert context.progress == {"total": 2, "processed": 2, "failed": 0}
        await clip_upload.run_stage(context)
        size = sum(file.size for file in await context.storage.list_files("clips/talk"))
        assert context.progress == {
            "current_clip": 2,
            "total_clips": 2,
            "bytes_uploaded": size,
            "total_bytes": size,
            "percentage": 100,
        }


async def test_a_video_without_moments_has_no_clips_to_cut(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path) as (context, _):
        assert await reasons(context) == ("No moments to extract clips from", "No moments to upload clips for")


@pytest.mark.parametrize(
    ("finder", "run_type", "reason"),
    [
        (ScriptedFinder(), RunType.FULL, "Refinement model does not support video"),
        (ScriptedFinder(), RunType.CLIPS, None),
        (ScriptedFinder(supports_video=True), RunType.FULL, None),
        (ScriptedFinder(is_local=True), RunType.FULL, None),
    ],
)
async def test_clips_are_cut_for_people_and_for_services_that_are_shown_them(
    own_database_url: str, tmp_path: Path, finder: ScriptedFinder, run_type: RunType, reason: str | None
) -> None:
    models = ScriptedModels(finder=finder)
    run = clipping(own_database_url, tmp_path, (2, 5), models=models, run_type=run_type, refinement_model="minimax")
    async with run as (context, _):
        assert await reasons(context) == (reason, reason)
        assert set(models.keys) <= {"minimax"}


async def test_clips_that_are_there_are_kept_without_override(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5)) as (context, [first]):
        await run_stages(context)
        kept = await stored_clip(context, first)
        await end(context)
    async with clipping(own_database_url, tmp_path, override_existing_clips=False) as (context, _):
        assert await reasons(context) == ("All clips already extracted", "All clips already uploaded")
        async with context.database.connect() as conn:
            second = await make_original(conn, context, 8, 12)
        assert await reasons(context) == (None, None)
        result, _ = await run_stages(context)
        assert (result["total"], result["clips"]) == (2, 1)
        assert await stored_clip(context, first) == kept
        assert await stored_clip(context, second)


async def test_a_clip_whose_file_is_missing_is_cut_again_without_override(
    own_database_url: str, tmp_path: Path
) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5), override_existing_clips=False) as (context, [moment]):
        async with context.database.connect() as conn:
            lost = await make_clip(conn, moment)
        assert await reasons(context) == (None, None)
        await run_stages(context)
        assert (await stored_clip(context, moment)).cloud_url != lost.cloud_url


async def test_with_override_a_clip_takes_the_place_of_the_one_before(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5)) as (context, [moment]):
        await run_stages(context)
        old = await stored_clip(context, moment)
        picture = tmp_path / "media" / "thumbnails" / "talk" / "old.jpg"
        picture.parent.mkdir(parents=True)
        picture.write_bytes(b"a picture")
        async with context.database.connect() as conn:
            thumbnail = await make_thumbnail(conn, clip_id=old.id, cloud_url=picture.as_uri())
        await end(context)
    async with clipping(own_database_url, tmp_path) as (context, _):
        await clips.run_stage(context)
        assert await stored_clip(context, moment) == old
        await clip_upload.run_stage(context)
        new = await stored_clip(context, moment)
        assert new.cloud_url != old.cloud_url
        assert await stored_files(context) == [new.cloud_url]
        async with context.database.connect() as conn:
            assert await ThumbnailRepository(conn).get(thumbnail.id) is None
        assert not picture.exists()


async def test_the_files_of_a_library_stay_where_clips_are_replaced(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5)) as (context, [moment]):
        theirs = tmp_path / "library" / "clip.mp4"
        theirs.write_bytes(b"a clip of the library")
        async with context.database.connect() as conn:
            await make_clip(conn, moment, cloud_url=theirs.as_uri())
        await run_stages(context)
        assert (await stored_clip(context, moment)).cloud_url != theirs.as_uri()
        assert theirs.exists()


async def test_one_clip_that_cannot_be_cut_does_not_stop_the_others(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5), (90, 95), (8, 12)) as (context, [first, behind, last]):
        cut, stored = await run_stages(context)
        assert (cut["total"], cut["clips"], cut["failed"]) == (3, 2, 1)
        assert cut["reason"] == f"1 of 3 clips could not be cut: {OUTSIDE}"
        assert stored == {"total": 2, "clips": 2, "failed": 0}
        assert await stored_clip(context, first)
        assert await stored_clip(context, last)
        assert await clip_of(context, behind) is None


async def test_the_stage_fails_where_no_clip_could_be_cut(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (90, 95)) as (context, _):
        with pytest.raises(StageFailed, match=OUTSIDE):
            await clips.run_stage(context)
        assert context.progress == {"total": 1, "processed": 1, "failed": 1}


async def test_a_moment_that_ends_behind_the_video_gets_no_clip_of_what_comes_before_it(
    own_database_url: str, tmp_path: Path
) -> None:
    async with clipping(own_database_url, tmp_path, (22, 24)) as (context, _):
        with pytest.raises(StageFailed, match="after the end of the video at 20"):
            await clips.run_stage(context)


async def test_a_video_whose_file_is_missing_is_reported(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5)) as (context, _):
        (tmp_path / "library" / "talk.mp4").unlink()
        with pytest.raises(StageFailed, match="The file of the video is missing"):
            await clips.run_stage(context)


async def test_one_clip_that_cannot_be_stored_does_not_stop_the_others(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5), (8, 12)) as (context, moments):
        await block(context, 0)
        _, stored = await run_stages(context)
        assert (stored["total"], stored["clips"], stored["failed"]) == (2, 1, 1)
        assert stored["reason"].startswith("1 of 2 clips could not be stored: ")
        assert await clip_of(context, moments[0]) is None
        assert await stored_clip(context, moments[1])


async def test_the_stage_fails_where_no_clip_could_be_stored(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5)) as (context, _):
        await block(context, 0)
        await clips.run_stage(context)
        with pytest.raises(StorageUnavailable):
            await clip_upload.run_stage(context)


async def block(context: RunContext, position: int) -> None:
    """Have a folder lie where a clip is to be stored."""
    target = (await plan_clips(context)).targets[position]
    (path_from_url(context.storage.url_of(target.key)) / "folder").mkdir(parents=True)


async def test_who_takes_a_run_over_cuts_only_what_is_missing(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5), (8, 12)) as (context, _):
        await clips.run_stage(context)
        first, second = sorted((context.folder / "clips").iterdir())
        before = first.stat().st_mtime_ns
        second.unlink()
        assert (await clips.run_stage(await take_over(context)))["clips"] == 2
        assert sorted((context.folder / "clips").iterdir()) == [first, second]
        assert first.stat().st_mtime_ns == before


async def test_another_machine_that_takes_a_run_over_cuts_what_is_not_stored(
    own_database_url: str, tmp_path: Path
) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5), (8, 12)) as (context, moments):
        await block(context, 1)
        await run_stages(context)
        kept = await stored_clip(context, moments[0])
        unblock(tmp_path)
        other = await take_over(context)
        other.folder = tmp_path / "other"
        other.folder.mkdir()
        assert await clip_upload.run_stage(other) == {"total": 1, "clips": 1, "failed": 0}
        assert await stored_clip(context, moments[0]) == kept
        assert await stored_clip(context, moments[1])
        assert await clip_upload.skip_reason(other) == "All clips already uploaded"


def unblock(folder: Path) -> None:
    for path in (folder / "media" / "clips" / "talk").glob("*/folder"):
        path.rmdir()
        path.parent.rmdir()


async def test_one_who_lost_the_run_changes_nothing(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5)) as (context, [moment]):
        await clips.run_stage(context)
        [target] = (await plan_clips(context)).targets
        other = await take_over(context)
        with pytest.raises(RunLost):
            await clip_upload.run_stage(context)
        assert await clip_of(context, moment) is None
        await clip_upload.run_stage(other)
        with pytest.raises(RunLost):
            await clip_upload._store_clip_file_and_row(context, target, lambda stored: None)
        assert await stored_files(context) == [(await stored_clip(context, moment)).cloud_url]


async def test_a_moment_that_is_deleted_meanwhile_leaves_no_file(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5), (8, 12)) as (context, [deleted, kept]):
        await clips.run_stage(context)
        targets = (await plan_clips(context)).targets
        async with context.database.connect() as conn:
            await MomentRepository(conn).delete(deleted.id)
        with pytest.raises(StageFailed, match="The moment was changed while its clip was made"):
            await clip_upload._store_clip_file_and_row(context, targets[0], lambda stored: None)
        await clip_upload.run_stage(context)
        assert await stored_files(context) == [(await stored_clip(context, kept)).cloud_url]


async def test_a_video_that_is_deleted_meanwhile_leaves_no_file(own_database_url: str, tmp_path: Path) -> None:
    async with clipping(own_database_url, tmp_path, (2, 5)) as (context, _):
        await clips.run_stage(context)
        [target] = (await plan_clips(context)).targets
        async with context.database.connect() as conn:
            await VideoRepository(conn).delete(context.run.video_id)
        with pytest.raises(VideoDeleted):
            await clip_upload._store_clip_file_and_row(context, target, lambda stored: None)
        assert await stored_files(context) == []


async def test_cutting_that_is_cancelled_ends_and_leaves_nothing_half_done(
    own_database_url: str, tmp_path: Path
) -> None:
    make_slides(tmp_path / "library" / "talk.mp4", [(second, (255, 0, 0)) for second in range(SECONDS)], 1280, 720)
    async with clipping(own_database_url, tmp_path, (2, 5), (8, 12)) as (context, _):
        working = asyncio.ensure_future(clips.run_stage(context))
        folder = context.folder / "clips"
        while not (folder.is_dir() and any(folder.iterdir())):
            assert not working.done()
            await asyncio.sleep(0.002)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert list(folder.iterdir()) == []


async def test_a_video_in_a_bucket_is_cut_where_it_lies(own_database_url: str, tmp_path: Path, bucket: str) -> None:
    settings = {"storage_url": f"gs://{bucket}/media"}
    async with clipping(own_database_url, tmp_path, (2, 5), settings=settings) as (context, [moment]):
        stored = await context.storage.put("videos/talk/video.mp4", tmp_path / "library" / "talk.mp4")
        async with context.database.connect() as conn:
            await VideoRepository(conn).update(context.run.video_id, cloud_url=stored.url)
        await run_stages(context)
        clip = await clip_of(context, moment)
        assert clip is not None
        assert clip.cloud_url.startswith(f"gs://{bucket}/media/clips/talk/")
        assert (await context.storage.stat(clip.cloud_url)).size > 0
        assert [path.name for path in context.folder.iterdir()] == ["clips"]
