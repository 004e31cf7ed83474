"""What belongs to a video, over all tables: read to know what a deletion takes, and deleted by kind."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.database import Connection
from app.database.queries import fetch_all, fetch_returned
from app.repositories.stored_runs import IS_WAITING


@dataclass(frozen=True, slots=True)
class FileRow:
    """A row that says where a file lies: `kind` is video, playable, thumbnail, clip or clip_thumbnail.

    `owner_id` is the id of the clip for the last two, of the video for the first two, and of the row itself for the
    others.
    """

    kind: str
    owner_id: int
    url: str


@dataclass(frozen=True, slots=True)
class VideoParts:
    """What else a video has; `active_status` is that of a run over it, in the words of clients."""

    transcript_id: int | None
    moments: int
    runs: list[str]
    active_status: str | None


class PartRepository:
    """Parts of one video."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def get(self, video_id: int) -> VideoParts:
        return await fetch_returned(
            self._conn,
            VideoParts,
            f"""
            SELECT (SELECT transcripts.id FROM transcripts WHERE video_id = %(video_id)s),
                   (SELECT count(*) FROM moments WHERE video_id = %(video_id)s),
                   ARRAY(SELECT identifier FROM pipeline_history WHERE video_id = %(video_id)s),
                   coalesce(
                       (SELECT CASE WHEN {IS_WAITING} THEN 'pending' ELSE 'processing' END
                        FROM pipeline_history JOIN pipeline.runs ON runs.run_id = pipeline_history.id
                        WHERE video_id = %(video_id)s AND status = 'running'
                        LIMIT 1),
                       (SELECT CASE status WHEN 'pending' THEN 'pending' WHEN 'running' THEN 'processing' END
                        FROM pipeline_history WHERE video_id = %(video_id)s
                        ORDER BY started_at DESC, id DESC LIMIT 1)
                   )
            """,
            {"video_id": video_id},
        )

    async def list_files(self, video_id: int) -> list[FileRow]:
        """Return where the files of the video lie, as its rows say."""
        return await fetch_all(
            self._conn,
            FileRow,
            """
            SELECT 'video', id, cloud_url FROM videos WHERE id = %(video_id)s
            UNION ALL
            SELECT 'playable', video_id, playable_url FROM library.video_files
            WHERE video_id = %(video_id)s AND playable_url IS NOT NULL
            UNION ALL
            SELECT 'thumbnail', id, cloud_url FROM thumbnails WHERE video_id = %(video_id)s
            UNION ALL
            SELECT 'clip', id, cloud_url FROM clips WHERE video_id = %(video_id)s
            UNION ALL
            SELECT 'clip_thumbnail', clips.id, thumbnails.cloud_url
            FROM clips JOIN thumbnails ON thumbnails.clip_id = clips.id
            WHERE clips.video_id = %(video_id)s
            """,
            {"video_id": video_id},
        )

    async def delete_clips(self, clip_ids: Sequence[int]) -> None:
        """Delete clips and, by cascade, their thumbnails."""
        await self._conn.execute("DELETE FROM clips WHERE id = ANY (%(ids)s)", {"ids": list(clip_ids)})

    async def delete_moments_without_clip(self, video_id: int) -> int:
        """Delete the video's moments that have no clip and return how many there were."""
        cursor = await self._conn.execute(
            """
            DELETE FROM moments
            WHERE video_id = %(video_id)s AND NOT EXISTS (SELECT FROM clips WHERE clips.moment_id = moments.id)
            """,
            {"video_id": video_id},
        )
        return cursor.rowcount
