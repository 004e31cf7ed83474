"""SQL over `generation_configs`."""

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict, Unpack

from psycopg import sql

from app.core.errors import InvalidInput
from app.database import Connection
from app.database.queries import fetch_all, fetch_one, fetch_returned, fetch_value
from app.models import GenerationConfig
from app.repositories.statements import and_where, copy_rows

COLUMNS = """id, prompt_id, transcript_id, model, operation_type, temperature, top_p, top_k, min_moment_length,
    max_moment_length, min_moments, max_moments, config_hash, created_at"""


class ModelParameters(TypedDict, total=False):
    """What a model call can be tuned with; lengths are seconds."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_moment_length: float | None
    max_moment_length: float | None
    min_moments: int | None
    max_moments: int | None


class _OfTranscript(TypedDict, total=False):
    transcript_id: int | None


class NewGenerationConfig(ModelParameters, _OfTranscript):
    """What a new config is made of: `prompt_id`, `model` and `operation_type` at least."""

    prompt_id: int
    model: str
    operation_type: str


_UNSET = dict.fromkeys(ModelParameters.__annotations__)


def config_hash(**config: Unpack[NewGenerationConfig]) -> str:
    """Return the hex SHA-256 of everything but `transcript_id`; equal numbers are one value, 60 and 60.0 too.

    Raises `InvalidInput` for a number that is not finite.
    """
    values: dict[str, Any] = {**_UNSET, **config}
    numbers = [_canonical_number(name, values[name]) for name in _UNSET]
    text = json.dumps([config["prompt_id"], config["model"], config["operation_type"], *numbers])
    return hashlib.sha256(text.encode()).hexdigest()


class GenerationConfigRepository:
    """Configs, each stored once and shared by all transcripts it was used for."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def get_or_create(self, **config: Unpack[NewGenerationConfig]) -> GenerationConfig:
        """Return the config with these parameters, inserted where it is new; it stays until the transaction ends.

        One that was made for another transcript, or for none, belongs to no transcript from now on: it must not go
        with the first one. Raises `InvalidInput` for a number that is not finite.
        """
        return await fetch_returned(
            self._conn,
            GenerationConfig,
            f"""
            WITH found AS (
                SELECT {COLUMNS} FROM generation_configs
                WHERE config_hash = %(config_hash)s
                  AND (transcript_id IS NULL OR transcript_id = %(transcript_id)s::integer)
                FOR KEY SHARE
            ), written AS (
                INSERT INTO generation_configs (
                    prompt_id, transcript_id, model, operation_type, temperature, top_p, top_k,
                    min_moment_length, max_moment_length, min_moments, max_moments, config_hash)
                SELECT %(prompt_id)s, %(transcript_id)s::integer, %(model)s, %(operation_type)s, %(temperature)s,
                       %(top_p)s, %(top_k)s, %(min_moment_length)s, %(max_moment_length)s, %(min_moments)s,
                       %(max_moments)s, %(config_hash)s
                WHERE NOT EXISTS (SELECT FROM found)
                -- It names another transcript, or somebody committed it after this statement began.
                ON CONFLICT (config_hash) DO UPDATE
                SET transcript_id = CASE generation_configs.transcript_id
                                    WHEN EXCLUDED.transcript_id THEN EXCLUDED.transcript_id END
                RETURNING {COLUMNS}
            )
            SELECT {COLUMNS} FROM found UNION ALL SELECT {COLUMNS} FROM written
            """,
            {**_UNSET, "transcript_id": None, **config, "config_hash": config_hash(**config)},
        )

    async def copy(self, configs: Iterable[NewGenerationConfig]) -> int:
        """Insert many new configs through COPY and return how many."""
        return await copy_rows(
            self._conn,
            "generation_configs",
            ("prompt_id", "transcript_id", "model", "operation_type", *_UNSET, "config_hash"),
            ({**config, "config_hash": config_hash(**config)} for config in configs),
        )

    async def get(self, config_id: int) -> GenerationConfig | None:
        return await fetch_one(
            self._conn,
            GenerationConfig,
            f"SELECT {COLUMNS} FROM generation_configs WHERE id = %(id)s",
            {"id": config_id},
        )

    async def list_page(
        self,
        limit: int,
        after: int = 0,
        prompt_id: int | None = None,
        model: str | None = None,
        operation_type: str | None = None,
    ) -> list[GenerationConfig]:
        """Return at most `limit` configs whose id is above `after`, ordered by id."""
        chosen = and_where(
            {
                "prompt_id = %(prompt_id)s": prompt_id,
                "model = %(model)s": model,
                "operation_type = %(operation_type)s": operation_type,
            }
        )
        return await fetch_all(
            self._conn,
            GenerationConfig,
            sql.SQL(
                f"SELECT {COLUMNS} FROM generation_configs WHERE id > %(after)s{{}} ORDER BY id LIMIT %(limit)s"
            ).format(chosen),
            {
                "after": after,
                "limit": limit,
                "prompt_id": prompt_id,
                "model": model,
                "operation_type": operation_type,
            },
        )

    async def detach_transcript(self, transcript_id: int) -> list[int]:
        """Make the transcript's configs belong to none, so that they outlive it, and return their ids."""
        cursor = await self._conn.execute(
            """
            UPDATE generation_configs SET transcript_id = NULL WHERE transcript_id = %(transcript_id)s
            RETURNING id
            """,
            {"transcript_id": transcript_id},
        )
        return [config_id for (config_id,) in await cursor.fetchall()]

    async def attach_transcript(self, config_ids: Sequence[int], transcript_id: int) -> None:
        """Make configs that belong to no transcript belong to this one."""
        await self._conn.execute(
            """
            UPDATE generation_configs SET transcript_id = %(transcript_id)s
            WHERE id = ANY(%(config_ids)s) AND transcript_id IS NULL
            """,
            {"transcript_id": transcript_id, "config_ids": list(config_ids)},
        )

    async def delete(self, config_id: int) -> bool:
        """Delete the config and, by cascade, its moments and runs; False where there is none."""
        cursor = await self._conn.execute("DELETE FROM generation_configs WHERE id = %(id)s", {"id": config_id})
        return cursor.rowcount == 1

    async def count(self) -> int:
        return int(await fetch_value(self._conn, "SELECT count(*) FROM generation_configs") or 0)


def _canonical_number(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if not abs(value) <= sys.float_info.max:
        raise InvalidInput(f"{name} must be a finite number")
    return value + 0.0  # 60 becomes 60.0, and -0.0 becomes 0.0
