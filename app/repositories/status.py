"""What is stored of the results of jobs: when each was made, and how much of it there is."""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import args_row

from app.database import Connection


@dataclass(frozen=True, slots=True)
class StoredTranscript:
    """When a video's transcript was made; no time where it has none."""

    made_at: datetime | None
    processing_seconds: float | None


@dataclass(frozen=True, slots=True)
class StoredMoments:
    """When the newest of some moments was made; no time where there are none."""

    made_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredRefinement:
    """Whether a video has a moment, and when that was last refined."""

    has_moment: bool
    made_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredClips:
    """How many originals a video has, how many of them a clip, and when the newest of the clips was made."""

    originals: int
    clips: int
    made_at: datetime | None


class StatusRepository:
    """What jobs have left in the tables; None where there is no such video."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def get_transcript(self, video: str) -> StoredTranscript | None:
        async with self._conn.cursor(row_factory=args_row(StoredTranscript)) as cursor:
            await cursor.execute(
                """
                SELECT transcripts.created_at, processing_time_seconds
                FROM videos LEFT JOIN transcripts ON transcripts.video_id = videos.id
                WHERE videos.identifier = %(video)s
                """,
                {"video": video},
            )
            return await cursor.fetchone()

    async def get_generated(self, video: str) -> StoredMoments | None:
        """Return when a model last found moments in the video."""
        async with self._conn.cursor(row_factory=args_row(StoredMoments)) as cursor:
            await cursor.execute(
                """
                SELECT (SELECT max(created_at) FROM moments
                        WHERE video_id = videos.id AND NOT is_refined AND generation_config_id IS NOT NULL)
                FROM videos WHERE identifier = %(video)s
                """,
                {"video": video},
            )
            return await cursor.fetchone()

    async def get_refinement(self, video: str, moment: str) -> StoredRefinement | None:
        async with self._conn.cursor(row_factory=args_row(StoredRefinement)) as cursor:
            await cursor.execute(
                """
                SELECT moments.id IS NOT NULL,
                       (SELECT max(created_at) FROM moments AS refined WHERE refined.parent_id = moments.id)
                FROM videos
                LEFT JOIN moments ON moments.video_id = videos.id AND moments.identifier = %(moment)s
                WHERE videos.identifier = %(video)s
                """,
                {"video": video, "moment": moment},
            )
            return await cursor.fetchone()

    async def get_clips(self, video: str) -> StoredClips | None:
        async with self._conn.cursor(row_factory=args_row(StoredClips)) as cursor:
            await cursor.execute(
                """
                SELECT count(moments.id), count(clips.id), max(clips.created_at)
                FROM videos
                LEFT JOIN moments ON moments.video_id = videos.id AND NOT is_refined
                LEFT JOIN clips ON clips.moment_id = moments.id
                WHERE videos.identifier = %(video)s
                GROUP BY videos.id
                """,
                {"video": video},
            )
            return await cursor.fetchone()
