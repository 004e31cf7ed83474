"""What was made of a video, and what was made with a prompt or a config."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import LiteralString

from psycopg import sql

from app.database import Connection
from app.database.queries import fetch_all, fetch_value
from app.repositories.statements import and_where

# Longer than a literal should be.
_LINEAGE = Path(__file__).with_name("lineage.sql").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class MadeMoment:
    """A moment with the identifiers of its video and its parent."""

    id: int
    identifier: str
    video_identifier: str
    start_time: float
    end_time: float
    title: str
    is_refined: bool
    parent_identifier: str | None
    generation_model: str | None
    generation_config_id: int | None
    score: int | None
    scoring_model: str | None
    scored_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MadeRun:
    """A run with the identifier of its video."""

    id: int
    identifier: str
    video_identifier: str
    generation_config_id: int | None
    pipeline_type: str
    status: str
    started_at: datetime
    completed_at: datetime | None
    duration_seconds: float | None
    total_moments_generated: int | None
    total_clips_created: int | None
    error_stage: str | None
    error_message: str | None
    created_at: datetime


class LineageRepository:
    """Reads along the lineage from video to clip."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def read_lineage(self, identifier: str) -> bytes | None:
        """Return the JSON document of a video's lineage as PostgreSQL prints it, or None where there is no video."""
        return await fetch_value(self._conn, _LINEAGE, {"identifier": identifier}, binary=True)

    async def list_moments(
        self, limit: int, after: int = 0, prompt_id: int | None = None, config_id: int | None = None
    ) -> list[MadeMoment]:
        """Return at most `limit` moments whose id is above `after`, ordered by id."""
        return await fetch_all(
            self._conn,
            MadeMoment,
            sql.SQL(
                """
                SELECT moments.id, moments.identifier, videos.identifier, moments.start_time, moments.end_time,
                       moments.title, moments.is_refined, parents.identifier, moments.generation_model,
                       moments.generation_config_id, moments.score, moments.scoring_model, moments.scored_at,
                       moments.created_at, moments.updated_at
                FROM moments
                JOIN videos ON videos.id = moments.video_id
                LEFT JOIN moments AS parents ON parents.id = moments.parent_id
                WHERE moments.id > %(after)s{}
                ORDER BY moments.id
                LIMIT %(limit)s
                """
            ).format(_made_with("moments.generation_config_id", prompt_id, config_id)),
            {"after": after, "limit": limit, "prompt_id": prompt_id, "config_id": config_id},
        )

    async def list_runs(
        self, limit: int, after: int = 0, prompt_id: int | None = None, config_id: int | None = None
    ) -> list[MadeRun]:
        """Return at most `limit` runs whose id is above `after`, ordered by id."""
        return await fetch_all(
            self._conn,
            MadeRun,
            sql.SQL(
                """
                SELECT runs.id, runs.identifier, videos.identifier, runs.generation_config_id, runs.pipeline_type,
                       runs.status, runs.started_at, runs.completed_at, runs.duration_seconds,
                       runs.total_moments_generated, runs.total_clips_created, runs.error_stage,
                       runs.error_message, runs.created_at
                FROM pipeline_history AS runs
                JOIN videos ON videos.id = runs.video_id
                WHERE runs.id > %(after)s{}
                ORDER BY runs.id
                LIMIT %(limit)s
                """
            ).format(_made_with("runs.generation_config_id", prompt_id, config_id)),
            {"after": after, "limit": limit, "prompt_id": prompt_id, "config_id": config_id},
        )


def _made_with(column: LiteralString, prompt_id: int | None, config_id: int | None) -> sql.Composed:
    return and_where(
        {
            column + " = %(config_id)s": config_id,
            # An array, and not a join: that would begin with the moments of all prompts.
            column + " = ANY (ARRAY(SELECT id FROM generation_configs WHERE prompt_id = %(prompt_id)s))": prompt_id,
        }
    )
