"""Get-or-create of prompts and configs when several callers want the same row at once, each on its own connection."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import pytest

from app.core.config import Settings
from app.database import Connection, open_async_connection
from app.models import Prompt
from app.repositories import GenerationConfigRepository, PromptRepository, TranscriptRepository
from app.repositories.provenance import PromptSummary
from tests.factories import count_rows, make_generation_config, make_moment, make_prompt, make_transcript

_T = TypeVar("_T")
_CALLERS = 50


def summary_of(prompt: Prompt) -> PromptSummary:
    return PromptSummary(
        prompt.id, prompt.user_prompt, len(prompt.system_prompt), prompt.prompt_hash, prompt.created_at
    )


async def delete_prompt(conn: Connection, prompt_id: int) -> int:
    """Return how many rows were deleted."""
    return (await conn.execute("DELETE FROM prompts WHERE id = %s", (prompt_id,))).rowcount


async def test_fifty_callers_get_one_prompt(own_database_url: str) -> None:
    prompts = await _race(own_database_url, lambda conn, _: PromptRepository(conn).get_or_create("Find", "JSON"))
    assert len({prompt.id for prompt in prompts}) == 1
    async with _connections(own_database_url, 1) as (conn,):
        assert await PromptRepository(conn).list_prompt_summaries(10) == [summary_of(prompts[0])]


async def test_fifty_callers_for_one_transcript_get_one_config_that_is_its_own(own_database_url: str) -> None:
    async with _connections(own_database_url, 1) as (conn,):
        prompt, transcript = await make_prompt(conn), await make_transcript(conn)
        configs = await _race(
            own_database_url,
            lambda conn, _: make_generation_config(conn, prompt_id=prompt.id, transcript_id=transcript.id),
        )
        assert len({config.id for config in configs}) == 1
        assert {config.transcript_id for config in configs} == {transcript.id}
        assert await GenerationConfigRepository(conn).list_configs(10) == configs[:1]


async def test_fifty_callers_for_fifty_transcripts_get_one_config_that_is_shared(own_database_url: str) -> None:
    async with _connections(own_database_url, 1) as (conn,):
        prompt = await make_prompt(conn)
        transcripts = [await make_transcript(conn) for _ in range(_CALLERS)]
        configs = await _race(
            own_database_url,
            lambda conn, number: make_generation_config(
                conn, prompt_id=prompt.id, transcript_id=transcripts[number].id
            ),
        )
        assert len({config.id for config in configs}) == 1
        assert [config.transcript_id for config in await GenerationConfigRepository(conn).list_configs(10)] == [None]


async def test_a_prompt_committed_while_the_statement_runs_is_found(own_database_url: str) -> None:
    async with _connections(own_database_url, 2) as (first, second):
        async with first.transaction():
            made = await PromptRepository(first).get_or_create("Find", "JSON")
            waiting = asyncio.create_task(PromptRepository(second).get_or_create("Find", "JSON"))
            await _until_blocked(first, second)
        assert await waiting == made
        assert await count_rows(first, "prompts") == 1


async def test_a_prompt_rolled_back_while_the_statement_runs_is_inserted(own_database_url: str) -> None:
    async with _connections(own_database_url, 2) as (first, second):
        async with first.transaction(force_rollback=True):
            await PromptRepository(first).get_or_create("Find", "JSON")
            waiting = asyncio.create_task(PromptRepository(second).get_or_create("Find", "JSON"))
            await _until_blocked(first, second)
        assert await PromptRepository(first).get((await waiting).id) == await waiting


async def test_a_prompt_deleted_while_the_statement_runs_is_inserted_again(own_database_url: str) -> None:
    async with _connections(own_database_url, 2) as (first, second):
        deleted = await PromptRepository(first).get_or_create("Find", "JSON")
        async with first.transaction():
            await delete_prompt(first, deleted.id)
            waiting = asyncio.create_task(PromptRepository(second).get_or_create("Find", "JSON"))
            await _until_blocked(first, second)
        assert (await waiting).id != deleted.id
        assert await PromptRepository(first).list_prompt_summaries(10) == [summary_of(await waiting)]


async def test_a_prompt_that_was_found_cannot_be_deleted_before_the_transaction_ends(own_database_url: str) -> None:
    async with _connections(own_database_url, 2) as (first, second):
        prompt = await PromptRepository(first).get_or_create("Find", "JSON")
        async with first.transaction():
            await PromptRepository(first).get_or_create("Find", "JSON")
            deleting = asyncio.create_task(delete_prompt(second, prompt.id))
            await _until_blocked(first, second)
            await make_generation_config(first, prompt_id=prompt.id)
        assert await deleting == 1


@pytest.mark.parametrize("same_transcript", [True, False])
async def test_a_config_committed_while_the_statement_runs_is_found(
    own_database_url: str, same_transcript: bool
) -> None:
    async with _connections(own_database_url, 2) as (first, second):
        prompt, transcript = await make_prompt(first), await make_transcript(first)
        other = transcript if same_transcript else await make_transcript(first)
        async with first.transaction():
            made = await make_generation_config(first, prompt_id=prompt.id, transcript_id=transcript.id)
            waiting = asyncio.create_task(make_generation_config(second, prompt_id=prompt.id, transcript_id=other.id))
            await _until_blocked(first, second)
        found = await waiting
        assert (found.id, found.transcript_id) == (made.id, transcript.id if same_transcript else None)
        assert await GenerationConfigRepository(first).list_configs(10) == [found]


async def test_a_config_that_was_found_cannot_be_deleted_before_the_transaction_ends(own_database_url: str) -> None:
    async with _connections(own_database_url, 2) as (first, second):
        prompt, transcript = await make_prompt(first), await make_transcript(first)
        config = await make_generation_config(first, prompt_id=prompt.id, transcript_id=transcript.id)
        async with first.transaction():
            await make_generation_config(first, prompt_id=prompt.id, transcript_id=transcript.id)
            deleting = asyncio.create_task(TranscriptRepository(second).delete(transcript.id))
            await _until_blocked(first, second)
            await make_moment(first, generation_config_id=config.id)
        assert await deleting is True
        assert await count_rows(first, "generation_configs") == 0


async def test_a_config_shared_while_its_transcript_is_deleted_survives(own_database_url: str) -> None:
    async with _connections(own_database_url, 2) as (first, second):
        prompt, transcript = await make_prompt(first), await make_transcript(first)
        config = await make_generation_config(first, prompt_id=prompt.id, transcript_id=transcript.id)
        async with first.transaction():
            shared = await make_generation_config(first, prompt_id=prompt.id)
            deleting = asyncio.create_task(TranscriptRepository(second).delete(transcript.id))
            await _until_blocked(first, second)
        assert await deleting is True
        assert shared.id == config.id
        assert await GenerationConfigRepository(first).list_configs(10) == [shared]


async def test_sharing_a_config_does_not_wait_for_those_who_use_it(
    own_database_url: str,
) -> None:
    async with _connections(own_database_url, 2) as (first, second):
        prompt, transcripts = await make_prompt(first), [await make_transcript(first) for _ in range(2)]
        await make_generation_config(first, prompt_id=prompt.id, transcript_id=transcripts[0].id)
        async with first.transaction(), second.transaction():
            for conn in (first, second):
                await make_generation_config(conn, prompt_id=prompt.id, transcript_id=transcripts[0].id)
            shared = await make_generation_config(first, prompt_id=prompt.id, transcript_id=transcripts[1].id)
        assert shared.transcript_id is None


@asynccontextmanager
async def _connections(url: str, number: int) -> AsyncIterator[list[Connection]]:
    settings = Settings(database_url=url)
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_async_connection(settings)) for _ in range(number)]


async def _race(url: str, call: Callable[[Connection, int], Awaitable[_T]]) -> list[_T]:
    async with _connections(url, _CALLERS) as connections:
        return await asyncio.gather(*(call(conn, number) for number, conn in enumerate(connections)))


async def _until_blocked(blocker: Connection, blocked: Connection) -> None:
    """Wait until `blocked` waits for a lock that `blocker` holds."""
    async with asyncio.timeout(60):
        while True:
            cursor = await blocker.execute(
                "SELECT %s = ANY (pg_blocking_pids(%s))", (blocker.info.backend_pid, blocked.info.backend_pid)
            )
            if await cursor.fetchone() == (True,):
                return
