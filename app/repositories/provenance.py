"""Provenance of moments and runs: prompts, generation configs, and the lineage from video to clip."""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString, NotRequired, TypedDict, Unpack

from psycopg import sql

from app.core.errors import InvalidInput, PromptHashCollision
from app.database.queries import (
    Repository,
    fetch_all,
    fetch_one,
    fetch_returned_row,
    fetch_value,
    list_columns,
    make_and_conditions,
)
from app.models import GenerationConfig, Moment, PipelineRun, Prompt

PROMPT_COLUMNS = list_columns(Prompt)
_SELECT_PROMPT = f"SELECT {PROMPT_COLUMNS} FROM prompts"


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """A prompt without its system prompt, which may hold a whole transcript; the length is in characters."""

    id: int
    user_prompt: str
    system_prompt_length: int
    prompt_hash: str
    created_at: datetime


def prompt_hash(user_prompt: str, system_prompt: str) -> str:
    """Return the hex SHA-256 of both texts joined, so pairs that join to the same text collide."""
    return hashlib.sha256((user_prompt + system_prompt).encode()).hexdigest()


class PromptRepository(Repository):
    """Prompts, each stored once. They are immutable."""

    async def get_or_create(self, user_prompt: str, system_prompt: str) -> Prompt:
        """Return the prompt with these texts, inserted where it is missing, locked. Raises `PromptHashCollision`."""
        prompt = await fetch_returned_row(
            self._conn,
            Prompt,
            f"""
            WITH found AS (
                SELECT {PROMPT_COLUMNS} FROM prompts WHERE prompt_hash = %(prompt_hash)s FOR KEY SHARE
            ), written AS (
                INSERT INTO prompts (user_prompt, system_prompt, prompt_hash)
                SELECT %(user_prompt)s, %(system_prompt)s, %(prompt_hash)s WHERE NOT EXISTS (SELECT FROM found)
                -- A row that was committed after this statement began is invisible to `found`, but not to an update.
                ON CONFLICT (prompt_hash) DO UPDATE SET created_at = prompts.created_at
                RETURNING {PROMPT_COLUMNS}
            )
            SELECT {PROMPT_COLUMNS} FROM found UNION ALL SELECT {PROMPT_COLUMNS} FROM written
            """,
            {
                "user_prompt": user_prompt,
                "system_prompt": system_prompt,
                "prompt_hash": prompt_hash(user_prompt, system_prompt),
            },
        )
        if (prompt.user_prompt, prompt.system_prompt) != (user_prompt, system_prompt):
            raise PromptHashCollision
        return prompt

    async def get(self, prompt_id: int) -> Prompt | None:
        return await fetch_one(self._conn, Prompt, _SELECT_PROMPT + " WHERE id = %(id)s", {"id": prompt_id})

    async def list_prompt_summaries(self, limit: int, after_id: int = 0) -> list[PromptSummary]:
        return await fetch_all(
            self._conn,
            PromptSummary,
            """
            SELECT id, user_prompt, length(system_prompt), prompt_hash, created_at
            FROM prompts WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
            """,
            {"after": after_id, "limit": limit},
        )


CONFIG_COLUMNS = list_columns(GenerationConfig)
_SELECT_CONFIG = f"SELECT {CONFIG_COLUMNS} FROM generation_configs"


class ModelParameters(TypedDict, total=False):
    """Parameters of a model call; lengths are seconds."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_moment_length: float | None
    max_moment_length: float | None
    min_moments: int | None
    max_moments: int | None


class NewGenerationConfig(ModelParameters):
    """The columns of a new config: `prompt_id`, `model` and `operation_type` are required."""

    prompt_id: int
    model: str
    operation_type: str
    transcript_id: NotRequired[int | None]


_UNSET = dict.fromkeys(ModelParameters.__annotations__)


def config_hash(**config: Unpack[NewGenerationConfig]) -> str:
    """Return the hex SHA-256 of all values but `transcript_id`; 60 and 60.0 hash alike."""
    values: dict[str, Any] = {**_UNSET, **config}
    numbers = [_to_finite_float(name, values[name]) for name in _UNSET]
    text = json.dumps([config["prompt_id"], config["model"], config["operation_type"], *numbers])
    return hashlib.sha256(text.encode()).hexdigest()


class GenerationConfigRepository(Repository):
    """Generation configs, each stored once and shared by all transcripts that it was used for."""

    async def get_or_create(self, **config: Unpack[NewGenerationConfig]) -> GenerationConfig:
        """Return the config with these parameters, inserted where it is missing, and lock it against deletion.

        A config of another transcript is detached from it, so that it is not deleted with it. Raises `InvalidInput` for
        a number that is not finite.
        """
        return await fetch_returned_row(
            self._conn,
            GenerationConfig,
            f"""
            WITH found AS (
                SELECT {CONFIG_COLUMNS} FROM generation_configs
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
                -- It belongs to another transcript, or was committed after this statement began.
                ON CONFLICT (config_hash) DO UPDATE
                SET transcript_id = CASE generation_configs.transcript_id
                                    WHEN EXCLUDED.transcript_id THEN EXCLUDED.transcript_id END
                RETURNING {CONFIG_COLUMNS}
            )
            SELECT {CONFIG_COLUMNS} FROM found UNION ALL SELECT {CONFIG_COLUMNS} FROM written
            """,
            {**_UNSET, "transcript_id": None, **config, "config_hash": config_hash(**config)},
        )

    async def get(self, config_id: int) -> GenerationConfig | None:
        return await fetch_one(self._conn, GenerationConfig, _SELECT_CONFIG + " WHERE id = %(id)s", {"id": config_id})

    async def list_configs(
        self,
        limit: int,
        after_id: int = 0,
        prompt_id: int | None = None,
        model: str | None = None,
        operation_type: str | None = None,
    ) -> list[GenerationConfig]:
        values = {"prompt_id": prompt_id, "model": model, "operation_type": operation_type}
        chosen = make_and_conditions({f"{name} = %({name})s": value for name, value in values.items()})
        statement = sql.SQL(_SELECT_CONFIG + " WHERE id > %(after)s{} ORDER BY id LIMIT %(limit)s").format(chosen)
        return await fetch_all(self._conn, GenerationConfig, statement, {"after": after_id, "limit": limit, **values})

    async def detach_transcript(self, transcript_id: int) -> list[int]:
        """Detach the configs of a transcript that is to be deleted, and return their ids."""
        cursor = await self._conn.execute(
            """
            UPDATE generation_configs SET transcript_id = NULL WHERE transcript_id = %(transcript_id)s
            RETURNING id
            """,
            {"transcript_id": transcript_id},
        )
        return [config_id for (config_id,) in await cursor.fetchall()]

    async def attach_transcript(self, config_ids: Sequence[int], transcript_id: int) -> None:
        await self._conn.execute(
            """
            UPDATE generation_configs SET transcript_id = %(transcript_id)s
            WHERE id = ANY(%(config_ids)s) AND transcript_id IS NULL
            """,
            {"transcript_id": transcript_id, "config_ids": list(config_ids)},
        )


def _to_finite_float(name: str, value: float | None) -> float | None:
    """Return 60 as 60.0 and -0.0 as 0.0. Raises `InvalidInput` for NaN and infinity."""
    if value is None:
        return None
    if not abs(value) <= sys.float_info.max:
        raise InvalidInput(f"{name} must be a finite number")
    return value + 0.0  # 60 becomes 60.0, and -0.0 becomes 0.0


_LINEAGE_QUERY = Path(__file__).with_name("provenance.sql").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class MomentWithVideo(Moment):
    """A moment with the identifiers of its video and its parent."""

    video_identifier: str
    parent_identifier: str | None


@dataclass(frozen=True, slots=True)
class RunWithVideo(PipelineRun):
    """A run with the identifier of its video."""

    video_identifier: str


class ProvenanceRepository(Repository):
    """What was generated with a prompt or config, and the lineage of a video."""

    async def read_lineage_json(self, video_identifier: str) -> bytes | None:
        """Return all that was made from a video as a JSON document in UTF-8; None where it does not exist."""
        return await fetch_value(self._conn, _LINEAGE_QUERY, {"identifier": video_identifier}, binary=True)

    async def list_moments_of_prompt_or_config(
        self, limit: int, after_id: int = 0, prompt_id: int | None = None, config_id: int | None = None
    ) -> list[MomentWithVideo]:
        return await fetch_all(
            self._conn,
            MomentWithVideo,
            sql.SQL(
                f"""
                SELECT {list_columns(Moment, "moments.")}, videos.identifier, parents.identifier
                FROM moments
                JOIN videos ON videos.id = moments.video_id
                LEFT JOIN moments AS parents ON parents.id = moments.parent_id
                WHERE moments.id > %(after)s{{}}
                ORDER BY moments.id
                LIMIT %(limit)s
                """
            ).format(_make_prompt_or_config_conditions("moments.generation_config_id", prompt_id, config_id)),
            {"after": after_id, "limit": limit, "prompt_id": prompt_id, "config_id": config_id},
        )

    async def list_runs_of_prompt_or_config(
        self, limit: int, after_id: int = 0, prompt_id: int | None = None, config_id: int | None = None
    ) -> list[RunWithVideo]:
        return await fetch_all(
            self._conn,
            RunWithVideo,
            sql.SQL(
                f"""
                SELECT {list_columns(PipelineRun, "runs.")}, videos.identifier
                FROM pipeline_history AS runs
                JOIN videos ON videos.id = runs.video_id
                WHERE runs.id > %(after)s{{}}
                ORDER BY runs.id
                LIMIT %(limit)s
                """
            ).format(_make_prompt_or_config_conditions("runs.generation_config_id", prompt_id, config_id)),
            {"after": after_id, "limit": limit, "prompt_id": prompt_id, "config_id": config_id},
        )


def _make_prompt_or_config_conditions(
    column: LiteralString, prompt_id: int | None, config_id: int | None
) -> sql.Composed:
    return make_and_conditions(
        {
            column + " = %(config_id)s": config_id,
            # An array instead of a join, which would be planned from the moments of all prompts.
            column + " = ANY (ARRAY(SELECT id FROM generation_configs WHERE prompt_id = %(prompt_id)s))": prompt_id,
        }
    )
