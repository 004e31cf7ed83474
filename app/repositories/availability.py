"""A moment with its clip and with what is said around it."""

from dataclasses import dataclass

from app.database import Connection
from app.database.queries import fetch_one


@dataclass(frozen=True, slots=True)
class MomentMaterial:
    """What a refinement of a moment can use; times in seconds of the video.

    `said_from` is the start of the first word in the window, `said_until` the end of the first word that ends behind
    it, or else of the last one, in whatever order the words are.
    """

    has_moment: bool
    clip_url: str | None
    clip_seconds: float | None
    clip_is_audio: bool
    has_transcript: bool
    said_from: float | None
    said_until: float | None


class AvailabilityRepository:
    """What there is to refine a moment with."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def get(self, video: str, moment: str, padding: float) -> MomentMaterial | None:
        """Return what is there in a window of `padding` seconds around the moment; None where there is no video."""
        return await fetch_one(
            self._conn,
            MomentMaterial,
            """
            SELECT moments.id IS NOT NULL, clips.cloud_url, clips.end_time - clips.start_time,
                   clips.video_codec IS NULL AND clips.audio_codec IS NOT NULL,
                   transcripts.id IS NOT NULL,
                   (SELECT min(time::float8) FROM jsonb_path_query(
                       word_timestamps, 'lax $[*].start ? (@ >= $from && @ <= $until)',
                       jsonb_build_object('from', greatest(0, moments.start_time - %(padding)s),
                                          'until', moments.end_time + %(padding)s)
                   ) AS time),
                   coalesce(
                       -- A minute is seldom silent, and to look at all words takes ten times as long.
                       (SELECT min(time::float8) FROM jsonb_path_query(
                           word_timestamps, 'lax $[*].end ? (@ >= $until && @ < $near)',
                           jsonb_build_object('until', moments.end_time + %(padding)s,
                                              'near', moments.end_time + %(padding)s + 60)
                       ) AS time),
                       (SELECT min(time::float8) FROM jsonb_path_query(
                           word_timestamps, 'lax $[*].end ? (@ >= $until && @ < 1e300)',
                           jsonb_build_object('until', moments.end_time + %(padding)s)
                       ) AS time),
                       (SELECT max(time::float8) FROM jsonb_path_query(
                           word_timestamps, 'lax $[*].end ? (@ >= 0 && @ < 1e300)'
                       ) AS time)
                   )
            FROM videos
            LEFT JOIN moments ON moments.video_id = videos.id AND moments.identifier = %(moment)s
            LEFT JOIN clips ON clips.moment_id = moments.id
            LEFT JOIN transcripts ON transcripts.video_id = videos.id AND moments.id IS NOT NULL
            WHERE videos.identifier = %(video)s
            """,
            {"video": video, "moment": moment, "padding": padding},
        )
