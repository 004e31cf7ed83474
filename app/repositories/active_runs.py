"""Runs that have been accepted and have not ended."""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import args_row

from app.database import Connection


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run of some video; `is_waiting` is whether no worker has it, `subject` the moment that it refines or ''."""

    id: int
    identifier: str
    video: str
    type: str
    subject: str
    is_waiting: bool
    current_stage: str | None
    attempts: int
    started_at: datetime


class ActiveRunRepository:
    """Active runs over all videos and over one."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def list_active(self, limit: int, after: int = 0) -> list[ActiveRun]:
        """Return at most `limit` runs whose id is above `after`, in the order they were accepted."""
        async with self._conn.cursor(row_factory=args_row(ActiveRun)) as cursor:
            await cursor.execute(
                """
                SELECT history.id, history.identifier, videos.identifier, pipeline_type, subject, owner IS NULL,
                       current_stage, attempts, history.started_at
                FROM pipeline_history AS history
                JOIN pipeline.work ON work.run_id = history.id
                JOIN videos ON videos.id = history.video_id
                WHERE history.status = 'running' AND history.id > %(after)s
                ORDER BY history.id
                LIMIT %(limit)s
                """,
                {"limit": limit, "after": after},
            )
            return await cursor.fetchall()

    async def list_of_video(self, video: str) -> list[tuple[int, str]]:
        """Return the ids and the identifiers of the active runs of a video."""
        cursor = await self._conn.execute(
            """
            SELECT run_id, history.identifier
            FROM videos
            JOIN pipeline_history AS history ON history.video_id = videos.id
            JOIN pipeline.work ON work.run_id = history.id
            WHERE videos.identifier = %(video)s AND history.status = 'running'
            ORDER BY run_id
            """,
            {"video": video},
        )
        return await cursor.fetchall()
