"""What the lineage of a video holds: every row of it once, each below what it was made from."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from app.database import Connection
from app.models import Moment
from app.repositories import MomentRepository
from app.repositories.provenance import ProvenanceRepository
from tests.conftest import Statements
from tests.factories import (
    count_rows,
    make_clip,
    make_generation_config,
    make_moment,
    make_prompt,
    make_run,
    make_thumbnail,
    make_transcript,
    make_video,
)


async def test_a_whole_lineage_is_one_document_from_one_statement(conn: Connection, statements: Statements) -> None:
    video = await make_video(conn, identifier="talk", title="Talk", source_url="https://host/talk.mp4")
    transcript = await make_transcript(conn, video_id=video.id, number_of_words=2)
    prompt = await make_prompt(conn, user_prompt='Find "the best"', system_prompt="Ünï\n")
    config = await make_generation_config(conn, prompt_id=prompt.id, transcript_id=transcript.id)
    values = {"video_id": video.id, "generation_config_id": config.id, "generation_model": "served/model"}
    original = await make_moment(conn, score=7, scoring_model="judge", scored_at=datetime(2026, 2, 8, 12), **values)
    refined = await make_moment(conn, parent_id=original.id, is_refined=True, **values)
    clip = await make_clip(conn, refined, format="mp4", padding_left=0.5)
    picture = await make_thumbnail(conn, clip_id=clip.id, file_size_kb=9)
    cover = await make_thumbnail(conn, video_id=video.id)
    run = await make_run(conn, video_id=video.id, generation_config_id=config.id, completed_at=datetime(2026, 2, 9))
    by_hand = await make_moment(conn, video_id=video.id, title="By hand")
    with statements:
        document = await _read(conn, "talk")
    assert statements == 1

    assert (document["id"], document["title"]) == ("talk", "Talk")
    assert datetime.fromisoformat(document["created_at"]) == video.created_at.replace(tzinfo=UTC)
    assert document["thumbnail"]["id"] == cover.id
    assert (document["transcript"]["id"], document["transcript"]["number_of_words"]) == (transcript.id, 2)
    (shown_prompt,) = document["prompts"]
    assert (shown_prompt["id"], shown_prompt["user_prompt"]) == (prompt.id, 'Find "the best"')
    assert shown_prompt["system_prompt"] == "Ünï\n"
    (shown_config,) = shown_prompt["configs"]
    assert (shown_config["id"], shown_config["transcript_id"]) == (config.id, transcript.id)
    (top,) = shown_config["moments"]
    assert (top["id"], top["model_name"], top["clip"]) == (original.identifier, "served/model", None)
    assert (top["score"], top["scoring_model"], top["scored_at"]) == (7, "judge", "2026-02-08T12:00:00+00:00")
    (below,) = top["refinements"]
    assert (below["id"], below["parent_id"], below["is_refined"]) == (refined.identifier, original.identifier, True)
    assert (below["clip"]["id"], below["clip"]["padding_left"]) == (clip.id, 0.5)
    assert (below["clip"]["thumbnail"]["id"], below["clip"]["thumbnail"]["file_size_kb"]) == (picture.id, 9)
    assert [moment["id"] for moment in document["by_hand"]] == [by_hand.identifier]
    (shown_run,) = document["runs"]
    assert (shown_run["id"], shown_run["generation_config_id"]) == (run.identifier, config.id)
    assert shown_run["completed_at"] == "2026-02-09T00:00:00+00:00"


async def test_moments_are_in_the_order_of_time_whenever_they_were_added(conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    later, first, last = [
        await make_moment(conn, video_id=video.id, start_time=start, end_time=100.0) for start in (50.0, 10.0, 70.0)
    ]
    refined = [
        await make_moment(
            conn, video_id=video.id, start_time=start, end_time=100.0, is_refined=True, parent_id=first.id
        )
        for start in (30.0, 20.0)
    ]
    document = await _read(conn, "talk")
    assert [moment["id"] for moment in document["by_hand"]] == [moment.identifier for moment in (first, later, last)]
    below = document["by_hand"][0]["refinements"]
    assert [moment["id"] for moment in below] == [moment.identifier for moment in reversed(refined)]


async def test_a_video_without_anything_has_an_empty_lineage(conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    document = await _read(conn, "talk")
    assert (document["thumbnail"], document["transcript"]) == (None, None)
    assert document["prompts"] == document["by_hand"] == document["runs"] == []


async def test_an_unknown_video_has_no_lineage(conn: Connection) -> None:
    assert await ProvenanceRepository(conn).read_lineage_json("nobody") is None


async def test_nothing_of_another_video_is_shown(conn: Connection) -> None:
    video, config = await make_video(conn, identifier="talk"), await make_generation_config(conn)
    await make_moment(conn, generation_config_id=config.id)
    await make_run(conn, generation_config_id=config.id)
    mine = await make_moment(conn, video_id=video.id, generation_config_id=config.id)
    document = await _read(conn, "talk")
    assert [moment["id"] for moment in _moments(document)] == [mine.identifier]
    assert document["runs"] == []


async def test_a_config_that_made_nothing_yet_is_shown_with_its_transcript_or_its_run(conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    transcript = await make_transcript(conn, video_id=video.id)
    owned = await make_generation_config(conn, transcript_id=transcript.id)
    running = await make_generation_config(conn)
    await make_generation_config(conn)
    await make_run(conn, video_id=video.id, generation_config_id=running.id)
    assert _configs(await _read(conn, "talk")) == {owned.id, running.id}


async def test_what_lost_its_parent_stands_under_its_own_config(conn: Connection) -> None:
    video, config = await make_video(conn, identifier="talk"), await make_generation_config(conn)
    await make_moment(conn, video_id=video.id, is_refined=True, generation_config_id=config.id)
    ((shown,),) = ([*_moments(await _read(conn, "talk"))],)
    assert (shown["is_refined"], shown["parent_id"]) == (True, None)


async def test_a_moment_that_is_its_own_parent_stands_at_the_top(conn: Connection) -> None:
    video, moments = await make_video(conn, identifier="talk"), MomentRepository(conn)
    moment = await make_moment(conn, video_id=video.id)
    await moments.update(moment.id, parent_id=moment.id)
    child = await make_moment(conn, video_id=video.id, parent_id=moment.id)
    (top,) = (await _read(conn, "talk"))["by_hand"]
    assert (top["id"], top["parent_id"]) == (moment.identifier, moment.identifier)
    assert [below["id"] for below in top["refinements"]] == [child.identifier]


async def test_moments_that_are_each_others_ancestors_stand_at_the_top(conn: Connection) -> None:
    video, moments = await make_video(conn, identifier="talk"), MomentRepository(conn)
    first = await make_moment(conn, video_id=video.id)
    second = await make_moment(conn, video_id=video.id, parent_id=first.id)
    await moments.update(first.id, parent_id=second.id)
    child = await make_moment(conn, video_id=video.id, parent_id=second.id)
    tops = (await _read(conn, "talk"))["by_hand"]
    assert [(top["id"], [below["id"] for below in top["refinements"]]) for top in tops] == [
        (first.identifier, []),
        (second.identifier, [child.identifier]),
    ]


@pytest.mark.parametrize("seed", range(40))
async def test_each_row_is_there_once_whatever_its_parent(conn: Connection, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311  # not for secrets
    video, elsewhere = await make_video(conn, identifier="talk"), await make_moment(conn)
    configs = [None, *[(await make_generation_config(conn)).id for _ in range(3)]]
    moments: list[Moment] = []
    for number in range(dice.randint(1, 25)):
        earlier = dice.choice([None, elsewhere.id, *[moment.id for moment in moments]])
        moment = await make_moment(
            conn,
            video_id=video.id,
            title=f'{number}: "]}},{{\\ – é',
            parent_id=earlier,
            generation_config_id=dice.choice(configs),
        )
        moments.append(moment)
        if dice.random() < 0.5:
            clip = await make_clip(conn, moment)
            await make_thumbnail(conn, clip_id=clip.id)
    for moment in dice.sample(moments, dice.choice([0, 1, len(moments)])):  # circles, too
        await MomentRepository(conn).update(moment.id, parent_id=dice.choice(moments).id)

    document = await _read(conn, "talk")
    shown = [*_moments(document)]
    assert sorted(moment["id"] for moment in shown) == sorted(moment.identifier for moment in moments)
    assert {moment["title"] for moment in shown} == {moment.title for moment in moments}
    assert await _ids(conn, "clips") == sorted(moment["clip"]["id"] for moment in shown if moment["clip"])
    used = {moment.generation_config_id for moment in moments} - {None}
    assert _configs(document) == used
    stored = {moment.identifier: moment for moment in await MomentRepository(conn).list_by_video(video.id)}
    by_id = {moment.id: moment for moment in stored.values()}
    for parent, node in _edges(document):
        moment = stored[node["id"]]
        expected = by_id.get(moment.parent_id or 0)
        if expected and not _is_circular(moment, by_id):
            assert parent == expected.identifier
        else:
            assert parent is None


async def test_configs_that_share_a_prompt_name_its_text_once(conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    prompt = await make_prompt(conn, system_prompt="said once")
    for top_k in range(3):
        config = await make_generation_config(conn, prompt_id=prompt.id, top_k=top_k)
        for _ in range(2):
            await make_moment(conn, video_id=video.id, generation_config_id=config.id)
    text = await ProvenanceRepository(conn).read_lineage_json("talk")
    assert text is not None
    assert text.count(b"said once") == 1
    assert await count_rows(conn, "generation_configs") == len(_configs(orjson.loads(text)))


def _is_circular(moment: Moment, by_id: dict[int, Moment]) -> bool:
    seen, ancestor = set(), by_id.get(moment.parent_id or 0)
    while ancestor and ancestor.id not in seen:
        if ancestor.id == moment.id:
            return True
        seen.add(ancestor.id)
        ancestor = by_id.get(ancestor.parent_id or 0)
    return False


async def _read(conn: Connection, identifier: str) -> dict[str, Any]:
    text = await ProvenanceRepository(conn).read_lineage_json(identifier)
    assert text is not None
    document: dict[str, Any] = orjson.loads(text)
    return document


async def _ids(conn: Connection, table: str) -> list[int]:
    return [number for (number,) in await (await conn.execute(f"SELECT id FROM {table} ORDER BY id")).fetchall()]


def _configs(document: dict[str, Any]) -> set[int]:
    ids = [config["id"] for prompt in document["prompts"] for config in prompt["configs"]]
    assert len(ids) == len(set(ids))
    return set(ids)


def _moments(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (node for _, node in _edges(document))


def _edges(document: dict[str, Any]) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield each moment with the id of the one above it; those at the top of a config stand under that."""
    for prompt in document["prompts"]:
        for config in prompt["configs"]:
            assert {moment["generation_config_id"] for moment in config["moments"]} <= {config["id"]}
            yield from _below(None, config["moments"])
    assert {moment["generation_config_id"] for moment in document["by_hand"]} <= {None}
    yield from _below(None, document["by_hand"])


def _below(parent: str | None, nodes: list[dict[str, Any]]) -> Iterator[tuple[str | None, dict[str, Any]]]:
    for node in nodes:
        yield parent, node
        yield from _below(node["id"], node["refinements"])
