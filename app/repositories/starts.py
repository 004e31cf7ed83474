"""What has to be known of a video before a run over it is accepted."""

from dataclasses import dataclass

from app.database import Connection
from app.database.queries import fetch_one
from app.models.stages import RunType


@dataclass(frozen=True, slots=True)
class StartMaterial:
    """What a run can work on.

    `video_url` is where its file lies or should, `source_url` where it comes from; `is_described` is whether anything
    is known of the file, `is_silent` whether it is known to have no audio. `clip_url` is that of a clip with a picture.
    `running` is the type of a run that is in the way of one of the type asked for. Times are seconds of the video;
    `first_original_end` is the least of those at which originals end.
    """

    video_url: str
    source_url: str | None
    is_described: bool
    is_silent: bool
    has_transcript: bool
    has_originals: bool
    has_moment: bool
    clip_url: str | None
    running: str | None
    video_seconds: float | None
    moment_end: float | None
    first_original_end: float | None


class StartRepository:
    """What there is for runs."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def get(self, video: str, run_type: RunType, moment: str = "") -> StartMaterial | None:
        """Return what a run over the video, or over one moment of it, finds; None where there is no such video."""
        return await fetch_one(
            self._conn,
            StartMaterial,
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
            {"video": video, "type": run_type, "moment": moment},
        )
