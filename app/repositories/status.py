"""What is stored of jobs: the newest run of each kind, when its result was made, and how much of that there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from app.database import Connection
from app.models.stages import RunType


@dataclass(frozen=True, slots=True)
class JobRun:
    """A run that has not ended, or did within the last hour; `clips` is how far it is with those."""

    identifier: str
    status: str
    started_at: datetime
    completed_at: datetime | None
    error_message: str | None
    clips: Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class StoredAudio:
    """The sound itself is no row."""

    run: JobRun | None


@dataclass(frozen=True, slots=True)
class StoredTranscript:
    """When a video's transcript was made; no time where it has none."""

    run: JobRun | None
    made_at: datetime | None
    processing_seconds: float | None


@dataclass(frozen=True, slots=True)
class StoredMoments:
    """When the newest of some moments was made; no time where there are none."""

    run: JobRun | None
    made_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredRefinement:
    """Whether a video has a moment, and when that was last refined."""

    run: JobRun | None
    has_moment: bool
    made_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredClips:
    """How many originals a video has, how many of them a clip, and when the newest of the clips was made."""

    run: JobRun | None
    originals: int
    clips: int
    made_at: datetime | None


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


class StatusRepository:
    """What jobs do, and what they have left in the tables; None where there is no such video."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def get_audio(self, video: str) -> StoredAudio | None:
        row = await self._fetch(
            f"SELECT {_RUN_COLUMNS} FROM videos {_RUN} WHERE videos.identifier = %(video)s", video, RunType.AUDIO
        )
        return StoredAudio(_read_run(row)) if row else None

    async def get_transcript(self, video: str) -> StoredTranscript | None:
        row = await self._fetch(
            f"""
            SELECT {_RUN_COLUMNS}, transcripts.created_at, processing_time_seconds
            FROM videos LEFT JOIN transcripts ON transcripts.video_id = videos.id {_RUN}
            WHERE videos.identifier = %(video)s
            """,
            video,
            RunType.TRANSCRIPT,
        )
        return StoredTranscript(_read_run(row), *row[_RUN_WIDTH:]) if row else None

    async def get_generated(self, video: str) -> StoredMoments | None:
        """Return when a model last found moments in the video."""
        row = await self._fetch(
            f"""
            SELECT {_RUN_COLUMNS},
                   (SELECT max(created_at) FROM moments
                    WHERE video_id = videos.id AND NOT is_refined AND generation_config_id IS NOT NULL)
            FROM videos {_RUN}
            WHERE videos.identifier = %(video)s
            """,
            video,
            RunType.MOMENTS,
        )
        return StoredMoments(_read_run(row), *row[_RUN_WIDTH:]) if row else None

    async def get_refinement(self, video: str, moment: str) -> StoredRefinement | None:
        row = await self._fetch(
            f"""
            SELECT {_RUN_COLUMNS}, moments.id IS NOT NULL,
                   (SELECT max(created_at) FROM moments AS refined WHERE refined.parent_id = moments.id)
            FROM videos
            LEFT JOIN moments ON moments.video_id = videos.id AND moments.identifier = %(subject)s {_RUN}
            WHERE videos.identifier = %(video)s
            """,
            video,
            RunType.REFINEMENT,
            moment,
        )
        return StoredRefinement(_read_run(row), *row[_RUN_WIDTH:]) if row else None

    async def get_clips(self, video: str) -> StoredClips | None:
        row = await self._fetch(
            f"""
            SELECT {_RUN_COLUMNS}, originals, clips, made_at
            FROM videos
            CROSS JOIN LATERAL (
                SELECT count(*), count(clips.id), max(clips.created_at)
                FROM moments LEFT JOIN clips ON clips.moment_id = moments.id
                WHERE moments.video_id = videos.id AND NOT is_refined
            ) AS stored (originals, clips, made_at) {_RUN}
            WHERE videos.identifier = %(video)s
            """,
            video,
            RunType.CLIPS,
        )
        return StoredClips(_read_run(row), *row[_RUN_WIDTH:]) if row else None

    async def _fetch(
        self, statement: LiteralString, video: str, run_type: RunType, subject: str = ""
    ) -> Sequence[Any] | None:
        cursor = await self._conn.execute(statement, {"video": video, "type": run_type, "subject": subject})
        return await cursor.fetchone()


def _read_run(row: Sequence[Any]) -> JobRun | None:
    identifier, status, started_at, completed_at, error_message, clips = row[:_RUN_WIDTH]
    if identifier is None:
        return None
    return JobRun(identifier, status, started_at, completed_at, error_message, clips)
