"""Jobs, which are runs of one type over a video: preconditions, the newest run of each type, and its stored result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from app.database.queries import Repository, fetch_one
from app.models.stages import RunType


@dataclass(frozen=True, slots=True)
class RunPreconditions:
    """The state of a video, and of one of its moments, that decides whether a run can start.

    The file of `video_url` may not exist yet; without `has_media_info` it was never probed. `clip_url` is that of a
    clip with video, `first_original_end` the earliest end of an original moment in seconds.
    """

    video_url: str
    source_url: str | None
    has_media_info: bool
    is_silent: bool
    has_transcript: bool
    has_originals: bool
    has_moment: bool
    clip_url: str | None
    conflicting_type: str | None
    video_seconds: float | None
    moment_end: float | None
    first_original_end: float | None


@dataclass(frozen=True, slots=True)
class JobRun:
    """A pipeline run that has not ended, or has in the last hour; `clips` are its counters of clips."""

    identifier: str
    status: str
    started_at: datetime
    completed_at: datetime | None
    error_message: str | None
    clips: Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class Job:
    """The newest run of a type, and when its newest result was stored; None for audio files, which have no rows."""

    run: JobRun | None
    result_created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TranscriptJob(Job):
    """A job with the seconds that the transcription took."""

    processing_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RefinementJob(Job):
    """A job of one moment, which may not exist."""

    has_moment: bool = False


@dataclass(frozen=True, slots=True)
class ClipsJob(Job):
    """A job with the numbers of a video's original moments and of their clips."""

    originals: int = 0
    clips: int = 0


_RUN_COLUMNS = "run.identifier, run.status, run.started_at, run.completed_at, run.error_message, run.clip_progress"
_RUN_WIDTH = 6
_RUN = """
    LEFT JOIN LATERAL (
        SELECT history.identifier, history.status, history.started_at, history.completed_at, history.error_message,
               stages -> 'clips' -> 'progress' AS clip_progress
        FROM pipeline_history AS history JOIN pipeline.runs ON runs.run_id = history.id
        WHERE history.video_id = videos.id AND history.pipeline_type = %(type)s AND runs.subject = %(subject)s
        ORDER BY history.started_at DESC, history.id DESC
        LIMIT 1
    ) AS run ON run.status = 'running' OR run.completed_at > now() AT TIME ZONE 'utc' - interval '1 hour'"""


class JobRepository(Repository):
    """The newest run of each type of a video, and when its result was stored; None where the video does not exist."""

    async def get_audio_job(self, video_identifier: str) -> Job | None:
        row = await self._fetch_job_row(
            f"SELECT {_RUN_COLUMNS} FROM videos {_RUN} WHERE videos.identifier = %(video)s",
            video_identifier,
            RunType.AUDIO,
        )
        return Job(_make_job_run(row)) if row else None

    async def get_transcript_job(self, video_identifier: str) -> TranscriptJob | None:
        row = await self._fetch_job_row(
            f"""
            SELECT {_RUN_COLUMNS}, transcripts.created_at, processing_time_seconds
            FROM videos LEFT JOIN transcripts ON transcripts.video_id = videos.id {_RUN}
            WHERE videos.identifier = %(video)s
            """,
            video_identifier,
            RunType.TRANSCRIPT,
        )
        return TranscriptJob(_make_job_run(row), *row[_RUN_WIDTH:]) if row else None

    async def get_moments_job(self, video_identifier: str) -> Job | None:
        row = await self._fetch_job_row(
            f"""
            SELECT {_RUN_COLUMNS},
                   (SELECT max(created_at) FROM moments
                    WHERE video_id = videos.id AND NOT is_refined AND generation_config_id IS NOT NULL)
            FROM videos {_RUN}
            WHERE videos.identifier = %(video)s
            """,
            video_identifier,
            RunType.MOMENTS,
        )
        return Job(_make_job_run(row), *row[_RUN_WIDTH:]) if row else None

    async def get_refinement_job(self, video_identifier: str, moment_identifier: str) -> RefinementJob | None:
        row = await self._fetch_job_row(
            f"""
            SELECT {_RUN_COLUMNS},
                   (SELECT max(created_at) FROM moments AS refined WHERE refined.parent_id = moments.id),
                   moments.id IS NOT NULL
            FROM videos
            LEFT JOIN moments ON moments.video_id = videos.id AND moments.identifier = %(subject)s {_RUN}
            WHERE videos.identifier = %(video)s
            """,
            video_identifier,
            RunType.REFINEMENT,
            moment_identifier,
        )
        return RefinementJob(_make_job_run(row), *row[_RUN_WIDTH:]) if row else None

    async def get_clips_job(self, video_identifier: str) -> ClipsJob | None:
        row = await self._fetch_job_row(
            f"""
            SELECT {_RUN_COLUMNS}, result_created_at, originals, clips
            FROM videos
            CROSS JOIN LATERAL (
                SELECT count(*), count(clips.id), max(clips.created_at)
                FROM moments LEFT JOIN clips ON clips.moment_id = moments.id
                WHERE moments.video_id = videos.id AND NOT is_refined
            ) AS stored (originals, clips, result_created_at) {_RUN}
            WHERE videos.identifier = %(video)s
            """,
            video_identifier,
            RunType.CLIPS,
        )
        return ClipsJob(_make_job_run(row), *row[_RUN_WIDTH:]) if row else None

    async def _fetch_job_row(
        self, statement: LiteralString, video: str, run_type: RunType, subject: str = ""
    ) -> Sequence[Any] | None:
        cursor = await self._conn.execute(statement, {"video": video, "type": run_type, "subject": subject})
        return await cursor.fetchone()

    async def get_run_preconditions(
        self, video_identifier: str, run_type: RunType, moment_identifier: str = ""
    ) -> RunPreconditions | None:
        return await fetch_one(
            self._conn,
            RunPreconditions,
            """
            SELECT videos.cloud_url, source_url,
                   coalesce(videos.duration_seconds::text, videos.video_codec, videos.audio_codec) IS NOT NULL,
                   videos.video_codec IS NOT NULL AND videos.audio_codec IS NULL,
                   EXISTS (SELECT FROM transcripts WHERE video_id = videos.id),
                   EXISTS (SELECT FROM moments WHERE video_id = videos.id AND NOT is_refined),
                   moments.id IS NOT NULL,
                   CASE WHEN clips.video_codec IS NOT NULL OR clips.audio_codec IS NULL THEN clips.cloud_url END,
                   (SELECT pipeline_type FROM pipeline_history
                    WHERE video_id = videos.id AND status = 'running' AND pipeline_type IN ('full', %(type)s)
                    ORDER BY pipeline_type <> 'full' LIMIT 1),
                   videos.duration_seconds, moments.end_time,
                   (SELECT min(end_time) FROM moments WHERE video_id = videos.id AND NOT is_refined)
            FROM videos
            LEFT JOIN moments ON moments.video_id = videos.id AND moments.identifier = %(moment)s
            LEFT JOIN clips ON clips.moment_id = moments.id
            WHERE videos.identifier = %(video)s
            """,
            {"video": video_identifier, "type": run_type, "moment": moment_identifier},
        )


def _make_job_run(row: Sequence[Any]) -> JobRun | None:
    return None if row[0] is None else JobRun(*row[:_RUN_WIDTH])
