"""`/api/prompts` and `/api/generation-configs`, and what was made with one."""

from dataclasses import fields
from datetime import datetime
from typing import Any

import pytest
from httpx import AsyncClient

from app.api.provenance import GenerationConfigAnswer, MomentWithVideoAnswer, RunWithVideoAnswer
from app.database import Connection
from tests.conftest import Statements
from tests.factories import make_generation_config, make_moment, make_prompt, make_run, make_video

_LISTS = ["/api/prompts", "/api/generation-configs"]
_MADE = [f"{path}/{{}}/{kind}" for path in _LISTS for kind in ("moments", "runs")]


async def test_a_list_of_prompts_leaves_out_what_may_be_long(client: AsyncClient, conn: Connection) -> None:
    prompt = await make_prompt(conn, user_prompt="Find – it", system_prompt="é" * 1000)
    answer = await client.get("/api/prompts")
    assert answer.json() == [
        {
            "id": prompt.id,
            "user_prompt": "Find – it",
            "system_prompt_length": 1000,
            "prompt_hash": prompt.prompt_hash,
            "created_at": f"{prompt.created_at.isoformat()}+00:00",
        }
    ]


async def test_a_prompt_is_given_whole(client: AsyncClient, conn: Connection) -> None:
    prompt = await make_prompt(conn, user_prompt="Find", system_prompt="You answer in JSON.")
    assert (await client.get(f"/api/prompts/{prompt.id}")).json() == {
        "id": prompt.id,
        "user_prompt": "Find",
        "system_prompt": "You answer in JSON.",
        "prompt_hash": prompt.prompt_hash,
        "created_at": f"{prompt.created_at.isoformat()}+00:00",
    }


async def test_a_config_is_given_with_its_prompt_and_parameters(client: AsyncClient, conn: Connection) -> None:
    config = await make_generation_config(conn, model="qwen3", top_k=20, max_moment_length=90)
    answer = await client.get(f"/api/generation-configs/{config.id}")
    assert answer.json() == {
        "id": config.id,
        "prompt_id": config.prompt_id,
        "transcript_id": None,
        "model": "qwen3",
        "operation_type": "generation",
        "temperature": 0.7,
        "top_p": None,
        "top_k": 20,
        "min_moment_length": None,
        "max_moment_length": 90.0,
        "min_moments": None,
        "max_moments": None,
        "created_at": f"{config.created_at.isoformat()}+00:00",
    }
    assert {field.name for field in fields(GenerationConfigAnswer)} == answer.json().keys()


async def test_configs_are_chosen_by_prompt_model_and_operation(client: AsyncClient, conn: Connection) -> None:
    prompt = await make_prompt(conn)
    wanted = await make_generation_config(conn, prompt_id=prompt.id, model="a b", operation_type="refinement")
    await make_generation_config(conn, prompt_id=prompt.id, model="a b", operation_type="generation")
    await make_generation_config(conn, prompt_id=prompt.id, model="other", operation_type="refinement")
    await make_generation_config(conn, model="a b", operation_type="refinement")
    chosen: dict[str, Any] = {"prompt_id": prompt.id, "model": "a b", "operation_type": "refinement"}
    answer = await client.get("/api/generation-configs", params=chosen)
    assert [config["id"] for config in answer.json()] == [wanted.id]
    for name, value in chosen.items():
        assert len((await client.get("/api/generation-configs", params={name: value})).json()) == 3


async def test_the_moments_made_with_a_prompt_name_their_videos(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    prompt = await make_prompt(conn)
    configs = [await make_generation_config(conn, prompt_id=prompt.id, top_k=number) for number in range(2)]
    video, other = await make_video(conn, identifier="talk"), await make_video(conn, identifier="other")
    original = await make_moment(
        conn,
        video_id=video.id,
        generation_config_id=configs[0].id,
        generation_model="served/model",
        score=7,
        scoring_model="judge",
        scored_at=datetime(2026, 2, 8, 12),
    )
    refined = await make_moment(
        conn, video_id=other.id, generation_config_id=configs[1].id, parent_id=original.id, is_refined=True
    )
    await make_moment(conn, video_id=video.id)
    await make_moment(conn, video_id=video.id, generation_config_id=(await make_generation_config(conn)).id)
    with statements:
        shown = (await client.get(f"/api/prompts/{prompt.id}/moments")).json()
    assert statements == 1
    assert shown[0] == {
        "id": original.identifier,
        "video_id": "talk",
        "start_time": 10.0,
        "end_time": 20.0,
        "title": "A moment",
        "is_refined": False,
        "parent_id": None,
        "model_name": "served/model",
        "generation_config_id": configs[0].id,
        "score": 7,
        "scoring_model": "judge",
        "scored_at": "2026-02-08T12:00:00+00:00",
        "created_at": f"{original.created_at.isoformat()}+00:00",
        "updated_at": f"{original.updated_at.isoformat()}+00:00",
    }
    assert shown[0].keys() == {field.name for field in fields(MomentWithVideoAnswer)}
    assert [(moment["id"], moment["video_id"], moment["parent_id"]) for moment in shown[1:]] == [
        (refined.identifier, "other", original.identifier)
    ]
    of_config = (await client.get(f"/api/generation-configs/{configs[1].id}/moments")).json()
    assert of_config == shown[1:]


async def test_the_runs_made_with_a_prompt_name_their_videos(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    prompt, video = await make_prompt(conn), await make_video(conn, identifier="talk")
    configs = [await make_generation_config(conn, prompt_id=prompt.id, top_k=number) for number in range(2)]
    runs = [await make_run(conn, video_id=video.id, generation_config_id=config.id) for config in configs]
    await make_run(conn, video_id=video.id)
    with statements:
        shown = (await client.get(f"/api/prompts/{prompt.id}/runs")).json()
    assert statements == 1
    assert [(run["id"], run["video_id"]) for run in shown] == [(run.identifier, "talk") for run in runs]
    assert shown[0]["started_at"] == "2026-02-08T12:00:00+00:00"
    assert shown[0].keys() == {field.name for field in fields(RunWithVideoAnswer)}
    assert (await client.get(f"/api/generation-configs/{configs[1].id}/runs")).json() == shown[1:]


@pytest.mark.parametrize("path", [*_LISTS, *_MADE])
async def test_pages_lead_through_each_row_once(client: AsyncClient, conn: Connection, path: str) -> None:
    config = await _with_seven_of_each(conn)
    first = path.format(config.prompt_id if "prompts" in path else config.id)
    whole = (await client.get(first)).json()
    assert len(whole) >= 7
    answer = await client.get(first, params={"limit": 3})
    seen: list[Any] = answer.json()
    while "next" in answer.links:
        assert len(answer.json()) == 3
        answer = await client.get(answer.links["next"]["url"])
        seen += answer.json()
    assert seen == whole


async def test_the_next_page_has_the_same_filters(client: AsyncClient, conn: Connection) -> None:
    config = await make_generation_config(conn, model="a b&c")
    answer = await client.get("/api/generation-configs", params={"limit": 1, "model": "a b&c"})
    assert answer.links["next"]["url"] == f"/api/generation-configs?limit=1&model=a+b%26c&cursor={config.id}"
    assert (await client.get(answer.links["next"]["url"])).json() == []


@pytest.mark.parametrize("path", _MADE)
async def test_what_made_nothing_has_an_empty_list(client: AsyncClient, conn: Connection, path: str) -> None:
    config = await make_generation_config(conn)
    answer = await client.get(path.format(config.prompt_id if "prompts" in path else config.id))
    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.parametrize("number", ["0", "-1", "2147483648", "-2147483649", "9223372036854775808", "1" * 200])
@pytest.mark.parametrize("path", [*(f"{path}/{{}}" for path in _LISTS), *_MADE])
async def test_a_number_that_no_row_has_is_404(client: AsyncClient, path: str, number: str) -> None:
    answer = await client.get(path.format(number))
    detail = "Prompt not found" if "prompts" in path else "Generation config not found"
    assert (answer.status_code, answer.json()) == (404, {"detail": detail})


@pytest.mark.parametrize("number", ["x", "1.5", "1" * 5000, "%00", "null"])
@pytest.mark.parametrize("path", [*(f"{path}/{{}}" for path in _LISTS), *_MADE])
async def test_what_is_no_number_is_422(client: AsyncClient, path: str, number: str) -> None:
    answer = await client.get(path.format(number))
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "cursor=-1", "cursor=2147483648", "cursor=x", "cursor="])
@pytest.mark.parametrize("path", _LISTS)
async def test_a_strange_page_is_422(client: AsyncClient, path: str, query: str) -> None:
    assert (await client.get(f"{path}?{query}")).status_code == 422


@pytest.mark.parametrize("query", ["prompt_id=2147483648", "prompt_id=x", f"model={'x' * 101}", "model=%00"])
async def test_a_strange_filter_is_422(client: AsyncClient, query: str) -> None:
    answer = await client.get(f"/api/generation-configs?{query}")
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


async def _with_seven_of_each(conn: Connection) -> Any:
    """Return a config with seven moments and runs; there are more than seven prompts and configs."""
    video = await make_video(conn)
    configs = [await make_generation_config(conn) for _ in range(8)]
    for _ in range(7):
        await make_moment(conn, video_id=video.id, generation_config_id=configs[0].id)
        await make_run(conn, video_id=video.id, generation_config_id=configs[0].id)
    return configs[0]
