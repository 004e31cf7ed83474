"""SQL over `pipeline_history`."""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypedDict, Unpack

from psycopg import sql

from app.database import Connection
from app.database.queries import fetch_all, fetch_one, fetch_returned, fetch_value
from app.models import PipelineRun
from app.repositories.statements import and_where, copy_rows, set_clause

COLUMNS = """id, identifier, video_id, generation_config_id, pipeline_type, status, started_at, completed_at,
    duration_seconds, total_moments_generated, total_clips_created, error_stage, error_message, created_at"""

_IDENTIFIER_LENGTH = 100
_DIGEST_LENGTH = 16


class _Outcome(TypedDict, total=False):
    generation_config_id: int | None
    completed_at: datetime | None
    duration_seconds: float | None
    total_moments_generated: int | None
    total_clips_created: int | None
    error_stage: str | None
    error_message: str | None


class RunChanges(_Outcome, total=False):
    """What may change in a run."""

    status: str


class NewRun(_Outcome):
    """What a new run is made of: who it is, what it does and when it began, in UTC."""

    identifier: str
    video_id: int
    pipeline_type: str
    status: str
    started_at: datetime


_UNSET: dict[str, Any] = dict.fromkeys(_Outcome.__annotations__)


def new_run_identifier(video_identifier: str, started_at_ms: int) -> str:
    """Return `pipeline:{video}:{unix ms}`, at most 100 characters.

    A video identifier that is too long for that is cut, and ends in part of its SHA-256: two that begin alike differ.
    """
    frame = f"pipeline::{started_at_ms}"
    space = _IDENTIFIER_LENGTH - len(frame)
    if len(video_identifier) > space:
        digest = hashlib.sha256(video_identifier.encode()).hexdigest()[:_DIGEST_LENGTH]
        video_identifier = f"{video_identifier[: space - _DIGEST_LENGTH - 1]}-{digest}"
    return f"pipeline:{video_identifier}:{started_at_ms}"


class PipelineHistoryRepository:
    """Runs of the pipeline by id, by identifier, by video and by status."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def create(self, **run: Unpack[NewRun]) -> PipelineRun:
        """Insert a run. Raises `UniqueViolation` of `pipeline_history_identifier_key` where the identifier is taken."""
        return await fetch_returned(
            self._conn,
            PipelineRun,
            f"""
            INSERT INTO pipeline_history (identifier, video_id, generation_config_id, pipeline_type, status,
                                          started_at, completed_at, duration_seconds, total_moments_generated,
                                          total_clips_created, error_stage, error_message)
            VALUES (%(identifier)s, %(video_id)s, %(generation_config_id)s, %(pipeline_type)s, %(status)s,
                    %(started_at)s, %(completed_at)s, %(duration_seconds)s, %(total_moments_generated)s,
                    %(total_clips_created)s, %(error_stage)s, %(error_message)s)
            RETURNING {COLUMNS}
            """,
            _UNSET | run,
        )

    async def copy(self, runs: Iterable[NewRun]) -> int:
        """Insert many runs through COPY and return how many."""
        columns = ("identifier", "video_id", "pipeline_type", "status", "started_at", *_UNSET)
        return await copy_rows(self._conn, "pipeline_history", columns, runs)

    async def get(self, run_id: int) -> PipelineRun | None:
        return await fetch_one(
            self._conn, PipelineRun, f"SELECT {COLUMNS} FROM pipeline_history WHERE id = %(id)s", {"id": run_id}
        )

    async def get_by_identifier(self, identifier: str) -> PipelineRun | None:
        return await fetch_one(
            self._conn,
            PipelineRun,
            f"SELECT {COLUMNS} FROM pipeline_history WHERE identifier = %(identifier)s",
            {"identifier": identifier},
        )

    async def get_latest(self, video_id: int) -> PipelineRun | None:
        """Return the video's run that began last, or None where it has none."""
        return await fetch_one(
            self._conn,
            PipelineRun,
            f"""
            SELECT {COLUMNS} FROM pipeline_history
            WHERE video_id = %(video_id)s
            ORDER BY started_at DESC, id DESC
            LIMIT 1
            """,
            {"video_id": video_id},
        )

    async def list_by_video(
        self, video_id: int, limit: int, before: tuple[datetime, int] | None = None
    ) -> list[PipelineRun]:
        """Return at most `limit` runs of the video, newest first; `before` is the last one's `(started_at, id)`."""
        started_at, run_id = before or (None, None)
        earlier = and_where({"(started_at, id) < (%(started_at)s, %(id)s)": before})
        return await fetch_all(
            self._conn,
            PipelineRun,
            sql.SQL(
                f"""
                SELECT {COLUMNS} FROM pipeline_history
                WHERE video_id = %(video_id)s{{}}
                ORDER BY started_at DESC, id DESC
                LIMIT %(limit)s
                """
            ).format(earlier),
            {"video_id": video_id, "limit": limit, "started_at": started_at, "id": run_id},
        )

    async def list_by_status(self, status: str, limit: int, after: int = 0) -> list[PipelineRun]:
        """Return at most `limit` runs of this status whose id is above `after`, ordered by id."""
        return await fetch_all(
            self._conn,
            PipelineRun,
            f"""
            SELECT {COLUMNS} FROM pipeline_history
            WHERE status = %(status)s AND id > %(after)s
            ORDER BY id
            LIMIT %(limit)s
            """,
            {"status": status, "limit": limit, "after": after},
        )

    async def update(self, run_id: int, **changes: Unpack[RunChanges]) -> PipelineRun | None:
        """Change the given columns and return the new row, or None where there is no such run."""
        if not changes:
            return await self.get(run_id)
        return await fetch_one(
            self._conn,
            PipelineRun,
            sql.SQL("UPDATE pipeline_history SET {} WHERE id = %(id)s RETURNING " + COLUMNS).format(
                set_clause(changes)
            ),
            {**changes, "id": run_id},
        )

    async def delete(self, run_id: int) -> bool:
        """Delete the run; False where there is none."""
        cursor = await self._conn.execute("DELETE FROM pipeline_history WHERE id = %(id)s", {"id": run_id})
        return cursor.rowcount == 1

    async def count(self) -> int:
        return int(await fetch_value(self._conn, "SELECT count(*) FROM pipeline_history") or 0)
