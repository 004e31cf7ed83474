"""Provenance: prompts, generation configs, and the moments and runs that used them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Literal

from app.core.errors import GenerationConfigNotFound, PromptNotFound, VideoNotFound, require_found
from app.core.masking import mask_stored_text
from app.database import Connection
from app.models import GenerationConfig, Prompt
from app.repositories import GenerationConfigRepository, PromptRepository
from app.repositories.provenance import MomentWithVideo, PromptSummary, ProvenanceRepository, RunWithVideo

Source = Literal["prompt", "config"]  # what moments and runs were made with
_LARGE_BYTES = 100_000  # larger documents are masked in a thread


async def list_masked_prompt_summaries(conn: Connection, limit: int, after_id: int) -> list[PromptSummary]:
    found = await PromptRepository(conn).list_prompt_summaries(limit, after_id)
    return [replace(prompt, user_prompt=mask_stored_text(prompt.user_prompt)) for prompt in found]


async def get_masked_prompt(conn: Connection, prompt_id: int) -> Prompt:
    prompt = require_found(await PromptRepository(conn).get(prompt_id), PromptNotFound)
    texts = (mask_stored_text(prompt.user_prompt), mask_stored_text(prompt.system_prompt))
    return replace(prompt, user_prompt=texts[0], system_prompt=texts[1])


async def list_generation_configs(
    conn: Connection,
    limit: int,
    after_id: int,
    prompt_id: int | None = None,
    model: str | None = None,
    operation_type: str | None = None,
) -> list[GenerationConfig]:
    return await GenerationConfigRepository(conn).list_configs(limit, after_id, prompt_id, model, operation_type)


async def get_generation_config(conn: Connection, config_id: int) -> GenerationConfig:
    return require_found(await GenerationConfigRepository(conn).get(config_id), GenerationConfigNotFound)


async def list_moments_of_prompt_or_config(
    conn: Connection, source: Source, source_id: int, limit: int, after_id: int
) -> list[MomentWithVideo]:
    repository, chosen = ProvenanceRepository(conn), {f"{source}_id": source_id}
    moments = await repository.list_moments_of_prompt_or_config(limit, after_id, **chosen)
    if not moments:
        await _GET_SOURCE[source](conn, source_id)
    return moments


async def list_runs_of_prompt_or_config(
    conn: Connection, source: Source, source_id: int, limit: int, after_id: int
) -> list[RunWithVideo]:
    runs = await ProvenanceRepository(conn).list_runs_of_prompt_or_config(
        limit, after_id, **{f"{source}_id": source_id}
    )
    if not runs:
        await _GET_SOURCE[source](conn, source_id)
    return runs


_GET_SOURCE: Mapping[Source, Callable[[Connection, int], Awaitable[object]]] = {
    "prompt": get_masked_prompt,
    "config": get_generation_config,
}


async def read_lineage(conn: Connection, video_identifier: str) -> bytes:
    """Return a video with all data derived from it as a JSON document, secrets masked. Raises `VideoNotFound`."""
    document = require_found(await ProvenanceRepository(conn).read_lineage_json(video_identifier), VideoNotFound)
    if len(document) <= _LARGE_BYTES:
        return _mask_secrets_in_json(document)
    return await asyncio.to_thread(_mask_secrets_in_json, document)


def _mask_secrets_in_json(json_document: bytes) -> bytes:
    return mask_stored_text(json_document.decode()).encode()
