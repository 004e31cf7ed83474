"""One video's transaction: what the files say becomes rows, and rows that say it already are left alone."""

from collections.abc import Mapping
from typing import Any

from app.database import Connection
from app.importer.configs import KnownConfigs, store_configs
from app.importer.places import Places
from app.importer.preparing import Certainty, PreparedVideo
from app.importer.report import Kind, Notes
from app.importer.runs import LegacyRun
from app.importer.transcripts import SERVICE, LegacyTranscript
from app.importer.writing_clips import write_clips
from app.importer.writing_moments import write_moments
from app.importer.written import Target, Written, find_changes
from app.models import PipelineRun, Transcript, Video
from app.repositories import (
    GenerationConfigRepository,
    RunRepository,
    ThumbnailRepository,
    TranscriptRepository,
    VideoRepository,
)
from app.repositories.media import VideoFileRepository
from app.repositories.runs import new_run_identifier


async def write_video(
    conn: Connection, prepared: PreparedVideo, places: Places, bucket: str | None, known: KnownConfigs
) -> Written:
    """Write all rows of a video inside the caller's transaction."""
    written = Written()
    target = await _write_video(conn, prepared, places, written)
    transcript_id = await _write_transcript(target)
    configs = [moment.config for moment in prepared.moments if moment.config is not None]
    if configs:
        written.configs = await store_configs(conn, configs, transcript_id, known, target.notes(prepared.moments_file))
    moments = await write_moments(target)
    await write_clips(target, moments, bucket)
    await _write_thumbnail(target)
    await _write_runs(target)
    return written


async def _write_video(conn: Connection, prepared: PreparedVideo, places: Places, written: Written) -> Target:
    videos, values = VideoRepository(conn), _video_values(prepared)
    url = places.url_of(prepared.film) if prepared.film else prepared.address.url
    written.elsewhere += not url.startswith("file:") and prepared.film is None
    stored = await videos.lock(prepared.identifier)
    if stored is None:
        video = await videos.create(identifier=prepared.identifier, cloud_url=url, **values)
        written.count("videos", None)
        await _store_early_end(conn, prepared, video)
        return Target(conn, prepared, places, video, True, written)
    await videos.mark_complete(stored.id)
    if places.keeps(stored.cloud_url, url):
        values = {name: value for name, value in values.items() if name == "source_url"}
        _note_own_file(prepared, places, stored, written)
    elif _is_better(prepared, places, stored):
        values["cloud_url"] = url
    changes = find_changes(stored, values)
    written.count("videos", stored, changes)
    video = await videos.update(stored.id, **changes) or stored
    if video.cloud_url == url:
        await _store_early_end(conn, prepared, video)
    return Target(conn, prepared, places, video, False, written)


async def _store_early_end(conn: Connection, prepared: PreparedVideo, video: Video) -> None:
    """Store that the video's file ends early, where it does."""
    media = prepared.film.media if prepared.film else None
    if media is not None and media.ends_early:
        await VideoFileRepository(conn).store_early_end(video.id, video.cloud_url, media.declared_seconds)


def _note_own_file(prepared: PreparedVideo, places: Places, stored: Video, written: Written) -> None:
    if prepared.film is not None and stored.cloud_url != places.copies[prepared.film.url]:
        notes = Notes(prepared.film.name, prepared.identifier, written.entries)
        notes.add(Kind.KEPT, "the server has another file of this video, which stays", stored.cloud_url)


async def _write_transcript(target: Target) -> int | None:
    transcripts, transcript = TranscriptRepository(target.conn), target.prepared.transcript
    stored = None if target.is_new else await transcripts.get_by_video(target.video.id)
    if transcript is None:
        return stored.id if stored else None
    if stored is None:
        target.written.count("transcripts", None)
        return await _create_transcript(target, transcript)
    changes = find_changes(stored, _transcript_values(transcript))
    target.written.count("transcripts", stored, changes)
    return await _replace_transcript(target, stored, transcript) if changes else stored.id


async def _create_transcript(target: Target, transcript: LegacyTranscript) -> int:
    values = _transcript_values(transcript)
    created = await TranscriptRepository(target.conn).create(video_id=target.video.id, **values)
    return created.id


async def _replace_transcript(target: Target, old: Transcript, transcript: LegacyTranscript) -> int:
    """A deleted transcript takes its configs and their moments with it: they move to the new one first."""
    configs = GenerationConfigRepository(target.conn)
    config_ids = await configs.detach_transcript(old.id)
    await TranscriptRepository(target.conn).delete(old.id)
    new_id = await _create_transcript(target, transcript)
    await configs.attach_transcript(config_ids, new_id)
    return new_id


async def _write_thumbnail(target: Target) -> None:
    thumbnail, thumbnails = target.prepared.thumbnail, ThumbnailRepository(target.conn)
    if thumbnail is None:
        return
    url = target.places.url_of(thumbnail)
    values: dict[str, Any] = {"cloud_url": url, "file_size_kb": thumbnail.file_size_kb}
    stored = None if target.is_new else await thumbnails.get_by_video(target.video.id)
    if stored is None:
        target.written.count("thumbnails", None)
        await thumbnails.create(video_id=target.video.id, **values)
    else:
        changes = {} if target.places.keeps(stored.cloud_url, url) else find_changes(stored, values)
        target.written.count("thumbnails", stored, changes)
        await thumbnails.update(stored.id, **changes)


async def _write_runs(target: Target) -> None:
    named: set[str] = set()
    for run in target.prepared.runs:
        named.add(await _write_run(target, run, named))


async def _write_run(target: Target, run: LegacyRun, named: set[str]) -> str:
    runs = RunRepository(target.conn)
    name, stored = await _name_run(target, run, named)
    values = _run_values(run)
    changes = find_changes(stored, values) if stored else {}
    target.written.count("pipeline_history", stored, changes)
    if stored:
        await runs.update(stored.id, **changes)
    else:
        await runs.create(
            identifier=name, video_id=target.video.id, pipeline_type="full", started_at=run.started_at, **values
        )
    return name


async def _name_run(target: Target, run: LegacyRun, named: set[str]) -> tuple[str, PipelineRun | None]:
    """Return a name for the run that neither another run of the file nor another video has, and the row under it."""
    runs, video = RunRepository(target.conn), target.video
    name, milliseconds = run.legacy_id, run.started_at_ms
    while True:
        if name is not None and name not in named:
            stored = await runs.get_by_identifier(name)
            if stored is None or stored.video_id == video.id:
                break
        name, milliseconds = new_run_identifier(video.identifier, milliseconds), milliseconds + 1
    if name != run.legacy_id:
        reason = "has no request_id" if run.legacy_id is None else "another run has its request_id"
        change = {"from": run.legacy_id, "to": name}
        target.notes(target.prepared.history_file).add(Kind.RENAMED, reason, change, row=run.row)
    return name, stored


def _video_values(prepared: PreparedVideo) -> dict[str, Any]:
    """What the files say: a column they say nothing of is not in it, and keeps what it has."""
    media = prepared.film.media if prepared.film else None
    values = {
        "source_url": prepared.source_url,
        "file_size_kb": prepared.file_size_kb,
        "duration_seconds": media.duration_seconds if media else None,
        "video_codec": media.video_codec if media else None,
        "audio_codec": media.audio_codec if media else None,
        "resolution": media.resolution if media else None,
        "frame_rate": media.frame_rate if media else None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _is_better(prepared: PreparedVideo, places: Places, stored: Video) -> bool:
    """A file that is there is where the video lies; an address of the registry replaces a file's and its own old."""
    if prepared.address.certainty is Certainty.NAMED:
        is_assumed = not stored.cloud_url.startswith("gs://") or stored.cloud_url in places.lost
        return is_assumed or stored.cloud_url == stored.source_url
    return prepared.address.certainty is Certainty.PRESENT


def _transcript_values(transcript: LegacyTranscript) -> dict[str, Any]:
    return {
        "full_text": transcript.full_text,
        "word_timestamps": transcript.words,
        "segment_timestamps": transcript.segments,
        "number_of_words": len(transcript.words),
        "number_of_segments": len(transcript.segments),
        "transcription_service": SERVICE,
        "processing_time_seconds": transcript.processing_time_seconds,
    }


def _run_values(run: LegacyRun) -> Mapping[str, Any]:
    return {
        "status": run.status,
        "completed_at": run.completed_at,
        "duration_seconds": run.duration_seconds,
        "error_stage": run.error_stage,
        "error_message": run.error_message,
    }
