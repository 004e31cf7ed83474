"""What the repository of generation configs promises, and how many statements each promise costs."""

import hashlib
from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.database import Connection
from app.repositories import GenerationConfigRepository, MomentRepository, TranscriptRepository
from app.repositories.provenance import config_hash
from tests.conftest import Statements
from tests.factories import count_rows, make_generation_config, make_moment, make_prompt, make_transcript

_EVERYTHING: dict[str, Any] = {
    "model": "qwen3",
    "operation_type": "refinement",
    "temperature": 0.25,
    "top_p": 0.9,
    "top_k": 40,
    "min_moment_length": 30.0,
    "max_moment_length": 120.5,
    "min_moments": 1,
    "max_moments": 10,
}


async def test_a_new_config_is_stored_as_it_was_given(conn: Connection, statements: Statements) -> None:
    prompt, transcript = await make_prompt(conn), await make_transcript(conn)
    configs = GenerationConfigRepository(conn)
    with statements:
        config = await configs.get_or_create(prompt_id=prompt.id, transcript_id=transcript.id, **_EVERYTHING)
    assert statements == 1
    assert {name: getattr(config, name) for name in _EVERYTHING} == _EVERYTHING
    assert (config.prompt_id, config.transcript_id) == (prompt.id, transcript.id)
    assert config.config_hash == config_hash(prompt_id=prompt.id, **_EVERYTHING)
    assert await configs.get(config.id) == config


async def test_what_is_not_given_is_null(conn: Connection) -> None:
    prompt = await make_prompt(conn)
    config = await GenerationConfigRepository(conn).get_or_create(
        prompt_id=prompt.id, model="qwen3", operation_type="generation"
    )
    assert (config.transcript_id, config.temperature, config.top_p, config.top_k) == (None, None, None, None)
    assert (config.min_moment_length, config.max_moment_length) == (None, None)
    assert (config.min_moments, config.max_moments) == (None, None)


async def test_the_same_parameters_are_one_config_however_they_are_written(
    conn: Connection, statements: Statements
) -> None:
    prompt, configs = await make_prompt(conn), GenerationConfigRepository(conn)
    parameters: dict[str, Any] = {"prompt_id": prompt.id, "model": "qwen3", "operation_type": "generation"}
    config = await configs.get_or_create(**parameters, temperature=0.0, min_moment_length=60)
    with statements:
        again = await configs.get_or_create(**parameters, temperature=-0.0, min_moment_length=60.0, top_p=None)
    assert statements == 1
    assert again == config


@pytest.mark.parametrize(
    "difference",
    [
        {"prompt_id": 2},
        {"model": "qwen3.5"},
        {"operation_type": "generation"},
        {"temperature": 0.5},
        {"top_p": 0.5},
        {"top_k": None},
        {"min_moment_length": None},
        {"max_moment_length": 120.0},
        {"min_moments": 2},
        {"max_moments": 11},
    ],
    ids=str,
)
def test_every_parameter_counts_in_the_hash(difference: dict[str, Any]) -> None:
    assert config_hash(**{"prompt_id": 1, **_EVERYTHING, **difference}) != config_hash(prompt_id=1, **_EVERYTHING)


def test_a_value_counts_for_its_own_parameter_only() -> None:
    call: dict[str, Any] = {"prompt_id": 1, "model": "qwen3", "operation_type": "generation"}
    assert config_hash(**call, temperature=0.5) != config_hash(**call, top_p=0.5)
    assert config_hash(**call, temperature=0.0) != config_hash(**call)


def test_the_transcript_does_not_count_in_the_hash() -> None:
    assert config_hash(prompt_id=1, transcript_id=5, **_EVERYTHING) == config_hash(prompt_id=1, **_EVERYTHING)


def test_the_hash_is_of_one_plain_text() -> None:
    text = b'[1, "qwen3", "generation", 0.7, null, 40.0, null, null, null, null]'
    call: dict[str, Any] = {"prompt_id": 1, "model": "qwen3", "operation_type": "generation"}
    assert config_hash(**call, temperature=0.70, top_k=40) == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), float("-inf"), 10**400], ids=["nan", "inf", "-inf", "huge"]
)
@pytest.mark.parametrize("name", ["temperature", "top_p", "max_moment_length"])
async def test_a_number_that_is_not_finite_is_refused(conn: Connection, name: str, number: float) -> None:
    with pytest.raises(InvalidInput, match=f"{name} must be a finite number"):
        await make_generation_config(conn, **{name: number})
    assert await count_rows(conn, "generation_configs") == 0


async def test_reuse_for_the_same_transcript_leaves_the_row_as_it_is(conn: Connection) -> None:
    prompt, transcript = await make_prompt(conn), await make_transcript(conn)
    config = await make_generation_config(conn, prompt_id=prompt.id, transcript_id=transcript.id)
    before = await _version(conn)
    assert await make_generation_config(conn, prompt_id=prompt.id, transcript_id=transcript.id) == config
    assert await _version(conn) == before


@pytest.mark.parametrize("with_transcript", [True, False])
async def test_reuse_for_another_transcript_or_none_takes_the_config_from_the_first(
    conn: Connection, statements: Statements, with_transcript: bool
) -> None:
    prompt, first = await make_prompt(conn), await make_transcript(conn)
    other = (await make_transcript(conn)).id if with_transcript else None
    config = await make_generation_config(conn, prompt_id=prompt.id, transcript_id=first.id)
    with statements:
        shared = await make_generation_config(conn, prompt_id=prompt.id, transcript_id=other)
    assert statements == 1
    assert (shared.id, shared.transcript_id) == (config.id, None)
    assert await GenerationConfigRepository(conn).get(config.id) == shared


async def test_a_shared_config_stays_shared_and_is_not_written_again(conn: Connection) -> None:
    prompt, transcript = await make_prompt(conn), await make_transcript(conn)
    shared = await make_generation_config(conn, prompt_id=prompt.id)
    before = await _version(conn)
    assert await make_generation_config(conn, prompt_id=prompt.id, transcript_id=transcript.id) == shared
    assert shared.transcript_id is None
    assert await _version(conn) == before


async def test_deleting_a_transcript_leaves_the_moments_of_another_that_share_its_config(conn: Connection) -> None:
    prompt, first, second = await make_prompt(conn), await make_transcript(conn), await make_transcript(conn)
    for transcript in (first, second):
        config = await make_generation_config(conn, prompt_id=prompt.id, transcript_id=transcript.id)
        await make_moment(conn, video_id=transcript.video_id, generation_config_id=config.id)
    await TranscriptRepository(conn).delete(first.id)
    assert len(await MomentRepository(conn).list_by_video(second.video_id)) == 1


async def test_a_config_of_one_transcript_goes_with_it(conn: Connection) -> None:
    transcript = await make_transcript(conn)
    await make_generation_config(conn, transcript_id=transcript.id)
    await TranscriptRepository(conn).delete(transcript.id)
    assert await count_rows(conn, "generation_configs") == 0


async def test_pages_cover_every_config_once_in_order(conn: Connection, statements: Statements) -> None:
    made = [await make_generation_config(conn) for _ in range(5)]
    configs = GenerationConfigRepository(conn)
    with statements:
        first = await configs.list_configs(3)
        second = await configs.list_configs(3, after_id=first[-1].id)
    assert statements == 2
    assert (first, second) == (made[:3], made[3:])


async def test_a_page_can_be_narrowed_by_each_filter_and_by_all(conn: Connection, statements: Statements) -> None:
    one, other = await make_prompt(conn), await make_prompt(conn)
    config = await make_generation_config(conn, prompt_id=one.id, model="a", operation_type="refinement")
    await make_generation_config(conn, prompt_id=other.id, model="b", operation_type="generation")
    configs = GenerationConfigRepository(conn)
    with statements:
        assert await configs.list_configs(10, prompt_id=one.id) == [config]
        assert await configs.list_configs(10, model="a") == [config]
        assert await configs.list_configs(10, operation_type="refinement") == [config]
        assert await configs.list_configs(10, prompt_id=one.id, model="a", operation_type="refinement") == [config]
        assert await configs.list_configs(10, prompt_id=one.id, model="b") == []
    assert statements == 5


async def _version(conn: Connection) -> str:
    cursor = await conn.execute("SELECT ctid::text FROM generation_configs")
    (version,) = await anext(cursor)
    return str(version)


async def test_a_detached_config_and_its_moments_outlive_the_transcript_and_can_get_another(
    conn: Connection, statements: Statements
) -> None:
    configs, transcripts = GenerationConfigRepository(conn), TranscriptRepository(conn)
    transcript = await make_transcript(conn)
    config = await make_generation_config(conn, transcript_id=transcript.id)
    other = await make_generation_config(conn, transcript_id=(await make_transcript(conn)).id)
    moment = await make_moment(conn, video_id=transcript.video_id, generation_config_id=config.id)
    with statements:
        detached = await configs.detach_transcript(transcript.id)
    assert statements == 1
    assert detached == [config.id]
    await transcripts.delete(transcript.id)
    successor = await make_transcript(conn, video_id=transcript.video_id)
    with statements:
        await configs.attach_transcript([config.id, other.id], successor.id)
    assert statements == 1
    assert await MomentRepository(conn).get(moment.id) == moment
    attached, untouched = await configs.get(config.id), await configs.get(other.id)
    assert attached is not None
    assert attached.transcript_id == successor.id
    assert untouched == other
