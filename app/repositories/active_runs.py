"""Runs that have been accepted and have not ended."""

from dataclasses import dataclass
from datetime import datetime

from app.database import Connection
from app.models.run import last_begun_stage
from app.models.stages import Stage
from app.repositories.stored_runs import IS_WAITING, read_stages


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run of some video. `is_waiting` is true until its first stage has begun, `current_stage` the last one that has;
    `subject` is the moment that it refines, or ''."""

    current_stage: Stage | None
    id: int
    identifier: str
    video: str
    type: str
    subject: str
    is_waiting: bool
    attempt: int
    started_at: datetime


class ActiveRunRepository:
    """Active runs over all videos and over one."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def list_active(self, limit: int, after: int = 0) -> list[ActiveRun]:
        """Return at most `limit` runs whose id is above `after`, in the order they were accepted."""
        cursor = await self._conn.execute(
            f"""
            SELECT history.id, history.identifier, videos.identifier, pipeline_type, subject, {IS_WAITING}, attempt,
                   history.started_at, stages
            FROM pipeline_history AS history
            JOIN pipeline.runs ON runs.run_id = history.id
            JOIN videos ON videos.id = history.video_id
            WHERE history.status = 'running' AND history.id > %(after)s
            ORDER BY history.id
            LIMIT %(limit)s
            """,
            {"limit": limit, "after": after},
        )
        return [ActiveRun(last_begun_stage(read_stages(stages)), *run) for *run, stages in await cursor.fetchall()]

    async def list_of_video(self, video: str) -> list[tuple[int, str]]:
        """Return the ids and the identifiers of the active runs of a video."""
        cursor = await self._conn.execute(
            """
            SELECT run_id, history.identifier
            FROM videos
            JOIN pipeline_history AS history ON history.video_id = videos.id
            JOIN pipeline.runs ON runs.run_id = history.id
            WHERE videos.identifier = %(video)s AND history.status = 'running'
            ORDER BY run_id
            """,
            {"video": video},
        )
        return await cursor.fetchall()
