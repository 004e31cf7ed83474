"""Migration 0007: configs of the local engine, made by the version before and as the repository makes them."""

from typing import Any

from psycopg import AsyncConnection

from app.repositories import GenerationConfigRepository
from app.repositories.provenance import config_hash
from tests.migrations.rows import fetch, insert
from tests.migrations.running import run_alembic

_FOUND = "Found on this machine, without a language model: the sentences of the transcript become vectors."
_REFINED = "Refined on this machine, without a language model: the moment begins where a sentence does."
_LOCAL = "local (all-MiniLM-L6-v2)"


async def test_configs_of_the_local_engine_name_it_and_those_of_models_stay(own_database_url: str) -> None:
    run_alembic(own_database_url, "downgrade", "0006")
    async with await AsyncConnection.connect(own_database_url, autocommit=True) as conn:
        found, refined, asked = [
            await insert(conn, "prompts", user_prompt="Jokes", system_prompt=text)
            for text in (_FOUND, _REFINED, "You answer in JSON.")
        ]
        limits: dict[str, Any] = {"min_moment_length": 12.5, "max_moment_length": 60, "min_moments": 3}
        transcript = await insert(conn, "transcripts")
        same = [
            await insert(
                conn,
                "generation_configs",
                prompt_id=found,
                model=model,
                temperature=0.7,
                transcript_id=transcript,
                **limits,
            )
            for model in ("minimax", "qwen3_vl_fp8")
        ]
        other = await insert(
            conn, "generation_configs", prompt_id=refined, model="minimax", operation_type="refinement", temperature=0.0
        )
        served = await insert(conn, "generation_configs", prompt_id=asked, model="minimax", temperature=0.7)
        moments = [await insert(conn, "moments", generation_config_id=config) for config in (*same, other, served)]
        run = await insert(conn, "pipeline_history", generation_config_id=same[1])

        run_alembic(own_database_url, "upgrade", "head")

        configs = "SELECT id, model, temperature, transcript_id FROM generation_configs ORDER BY id"
        assert await fetch(conn, configs) == [
            (same[0], _LOCAL, None, transcript),
            (other, _LOCAL, None, None),
            (served, "minimax", 0.7, None),
        ]
        of_moments = "SELECT id, generation_config_id FROM moments ORDER BY id"
        expected = [same[0], same[0], other, served]
        assert await fetch(conn, of_moments) == list(zip(moments, expected, strict=True))
        assert await fetch(conn, "SELECT id, generation_config_id FROM pipeline_history") == [(run, same[0])]
        values: dict[str, Any] = {"prompt_id": found, "model": _LOCAL, "operation_type": "generation", **limits}
        hashes = dict(await fetch(conn, "SELECT id, config_hash FROM generation_configs"))
        assert hashes[same[0]] == config_hash(**values)
        assert (await GenerationConfigRepository(conn).get_or_create(**values, transcript_id=transcript)).id == same[0]
