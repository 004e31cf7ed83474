"""Provenance: prompts, generation configs, and the moments and runs that used them."""

import asyncio
from dataclasses import replace

from app.core.errors import GenerationConfigNotFound, PromptNotFound, VideoNotFound
from app.core.masking import mask_stored_text
from app.database import Connection
from app.models import GenerationConfig, Prompt
from app.repositories import GenerationConfigRepository, PromptRepository
from app.repositories.provenance import MomentWithVideo, PromptSummary, ProvenanceRepository, RunWithVideo

_LARGE_BYTES = 100_000  # larger documents are masked in a thread


async def list_prompts(conn: Connection, limit: int, after: int) -> list[PromptSummary]:
    found = await PromptRepository(conn).list_prompt_summaries(limit, after)
    return [replace(prompt, user_prompt=mask_stored_text(prompt.user_prompt)) for prompt in found]


async def get_prompt(conn: Connection, prompt_id: int) -> Prompt:
    prompt = await PromptRepository(conn).get(prompt_id)
    if prompt is None:
        raise PromptNotFound
    texts = (mask_stored_text(prompt.user_prompt), mask_stored_text(prompt.system_prompt))
    return replace(prompt, user_prompt=texts[0], system_prompt=texts[1])


async def list_prompt_moments(conn: Connection, prompt_id: int, limit: int, after: int) -> list[MomentWithVideo]:
    moments = await ProvenanceRepository(conn).list_generated_moments(limit, after, prompt_id=prompt_id)
    if not moments:
        await get_prompt(conn, prompt_id)
    return moments


async def list_prompt_runs(conn: Connection, prompt_id: int, limit: int, after: int) -> list[RunWithVideo]:
    runs = await ProvenanceRepository(conn).list_generating_runs(limit, after, prompt_id=prompt_id)
    if not runs:
        await get_prompt(conn, prompt_id)
    return runs


async def list_generation_configs(
    conn: Connection,
    limit: int,
    after: int,
    prompt_id: int | None = None,
    model: str | None = None,
    operation_type: str | None = None,
) -> list[GenerationConfig]:
    return await GenerationConfigRepository(conn).list_configs(limit, after, prompt_id, model, operation_type)


async def get_generation_config(conn: Connection, config_id: int) -> GenerationConfig:
    config = await GenerationConfigRepository(conn).get(config_id)
    if config is None:
        raise GenerationConfigNotFound
    return config


async def list_config_moments(conn: Connection, config_id: int, limit: int, after: int) -> list[MomentWithVideo]:
    moments = await ProvenanceRepository(conn).list_generated_moments(limit, after, config_id=config_id)
    if not moments:
        await get_generation_config(conn, config_id)
    return moments


async def list_config_runs(conn: Connection, config_id: int, limit: int, after: int) -> list[RunWithVideo]:
    runs = await ProvenanceRepository(conn).list_generating_runs(limit, after, config_id=config_id)
    if not runs:
        await get_generation_config(conn, config_id)
    return runs


async def read_lineage(conn: Connection, identifier: str) -> bytes:
    """Return a video with all data derived from it as a JSON document, secrets masked. Raises `VideoNotFound`."""
    document = await ProvenanceRepository(conn).read_lineage_json(identifier)
    if document is None:
        raise VideoNotFound
    if len(document) <= _LARGE_BYTES:
        return _mask_document(document)
    return await asyncio.to_thread(_mask_document, document)


def _mask_document(document: bytes) -> bytes:
    return mask_stored_text(document.decode()).encode()
