"""What the repository of prompts promises, and how many statements each promise costs."""

import hashlib

import pytest

from app.core.errors import PromptHashCollision
from app.database import Connection
from app.repositories import PromptRepository
from app.repositories.provenance import prompt_hash
from tests.conftest import Statements
from tests.factories import count_rows, make_prompt


async def test_a_new_prompt_is_stored(conn: Connection, statements: Statements) -> None:
    with statements:
        prompt = await PromptRepository(conn).get_or_create("Find the best", "Answer in JSON")
    assert statements == 1
    assert (prompt.user_prompt, prompt.system_prompt) == ("Find the best", "Answer in JSON")
    assert prompt.prompt_hash == prompt_hash("Find the best", "Answer in JSON")
    assert await PromptRepository(conn).get(prompt.id) == prompt


async def test_a_known_prompt_is_found_in_one_statement(conn: Connection, statements: Statements) -> None:
    prompt = await make_prompt(conn)
    with statements:
        again = await PromptRepository(conn).get_or_create(prompt.user_prompt, prompt.system_prompt)
    assert statements == 1
    assert again == prompt
    assert await count_rows(conn, "prompts") == 1


async def test_finding_a_prompt_does_not_write_its_row_again(conn: Connection) -> None:
    prompt = await make_prompt(conn)
    before = await _version(conn)
    await PromptRepository(conn).get_or_create(prompt.user_prompt, prompt.system_prompt)
    assert await _version(conn) == before


def test_the_hash_is_of_the_two_texts_joined() -> None:
    assert prompt_hash("Gehe", " früh") == hashlib.sha256("Gehe früh".encode()).hexdigest()


async def test_a_pair_that_joins_to_the_same_text_is_refused(conn: Connection) -> None:
    prompts = PromptRepository(conn)
    await prompts.get_or_create("ab", "c")
    with pytest.raises(PromptHashCollision):
        await prompts.get_or_create("a", "bc")
    assert await count_rows(conn, "prompts") == 1


async def test_a_prompt_may_be_longer_than_an_index_entry(conn: Connection) -> None:
    text = "ä" * 100_000
    assert (await PromptRepository(conn).get_or_create(text, "")).user_prompt == text


async def _version(conn: Connection) -> str:
    cursor = await conn.execute("SELECT ctid::text FROM prompts")
    (version,) = await anext(cursor)
    return str(version)
