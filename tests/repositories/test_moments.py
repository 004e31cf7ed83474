"""What the repository of moments promises, and how many statements each promise costs."""

import re
from datetime import datetime
from typing import Any

import psycopg
import pytest

from app.database import Connection
from app.repositories import MomentRepository
from app.repositories.moments import make_random_moment_identifier
from tests.conftest import Statements
from tests.factories import make_generation_config, make_moment, make_video


async def test_a_copied_moment_is_stored_as_it_was_given(conn: Connection, statements: Statements) -> None:
    parent, config, moments = await make_moment(conn), await make_generation_config(conn), MomentRepository(conn)
    (moment_id,) = await moments.reserve_moment_ids(1)
    values: dict[str, Any] = {
        "id": moment_id,
        "identifier": make_random_moment_identifier(),
        "video_id": parent.video_id,
        "start_time": 12.25,
        "end_time": 18.5,
        "title": "The point",
        "is_refined": True,
        "parent_id": parent.id,
        "generation_model": "qwen3-8b",
        "generation_config_id": config.id,
        "score": 8,
        "scoring_model": "judge",
        "scored_at": datetime(2026, 2, 8, 12, 30),
    }
    row: Any = values
    with statements:
        assert await moments.insert_many([row]) == 1
    assert statements == 1
    moment = await moments.get(moment_id)
    assert {name: getattr(moment, name) for name in values} == values


async def test_a_moment_is_not_refined_unless_it_says_so(conn: Connection) -> None:
    created, moments = await make_moment(conn), MomentRepository(conn)
    (reserved,) = await moments.reserve_moment_ids(1)
    await moments.insert_many([_new(reserved, created.video_id)])
    copied = await moments.get(reserved)
    assert copied is not None
    assert (created.is_refined, copied.is_refined) == (False, False)


def test_new_identifiers_are_16_hex_characters_and_differ() -> None:
    made = {make_random_moment_identifier() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch("[0-9a-f]{16}", identifier) for identifier in made)


async def test_an_identifier_is_taken_once_over_all_videos(conn: Connection) -> None:
    moment = await make_moment(conn)
    with pytest.raises(psycopg.errors.UniqueViolation) as raised:
        await make_moment(conn, identifier=moment.identifier)
    assert raised.value.diag.constraint_name == "moments_identifier_key"


async def test_get_by_identifier_finds_the_moment(conn: Connection, statements: Statements) -> None:
    moment = await make_moment(conn)
    with statements:
        found = await MomentRepository(conn).get_by_identifier(moment.identifier)
    assert statements == 1
    assert found == moment


async def test_a_moment_that_is_not_there_is_none(conn: Connection, statements: Statements) -> None:
    moments = MomentRepository(conn)
    with statements:
        assert await moments.get(0) is None
        assert await moments.get_by_identifier("nobody") is None
        assert await moments.update(0, title="x") is None
        assert await moments.delete(0) is False
    assert statements == 4


async def test_a_video_lists_its_moments_as_they_were_added(conn: Connection, statements: Statements) -> None:
    video, moments = await make_video(conn), MomentRepository(conn)
    late = await make_moment(conn, video_id=video.id, start_time=50.0, end_time=60.0)
    early = await make_moment(conn, video_id=video.id)
    await make_moment(conn)
    with statements:
        assert await moments.list_by_video(video.id) == [late, early]
    assert statements == 1


async def test_children_are_those_refined_from_a_moment(conn: Connection, statements: Statements) -> None:
    parent = await make_moment(conn)
    children = [await make_moment(conn, video_id=parent.video_id, parent_id=parent.id) for _ in range(2)]
    await make_moment(conn, parent_id=children[0].id)
    with statements:
        assert await MomentRepository(conn).list_refinements_of(parent.id) == children
    assert statements == 1


@pytest.mark.parametrize(("start_time", "end_time"), [(5, 10.5), (19.5, 25), (12, 13), (5, 25), (10, 20)], ids=str)
async def test_a_span_that_shares_time_with_a_moment_overlaps(
    conn: Connection, statements: Statements, start_time: float, end_time: float
) -> None:
    moment = await make_moment(conn, start_time=10.0, end_time=20.0)
    with statements:
        overlap = await MomentRepository(conn).find_overlapping_moment(moment.video_id, start_time, end_time)
    assert statements == 1
    assert overlap == moment


@pytest.mark.parametrize(("start_time", "end_time"), [(0, 10), (20, 30), (0, 1), (25, 30)], ids=str)
async def test_a_span_that_touches_a_moment_or_lies_apart_does_not_overlap(
    conn: Connection, start_time: float, end_time: float
) -> None:
    moment = await make_moment(conn, start_time=10.0, end_time=20.0)
    assert await MomentRepository(conn).find_overlapping_moment(moment.video_id, start_time, end_time) is None


async def test_the_earliest_overlap_of_the_video_is_found(conn: Connection) -> None:
    video, moments = await make_video(conn), MomentRepository(conn)
    await make_moment(conn, start_time=1.0, end_time=90.0)
    late = await make_moment(conn, video_id=video.id, start_time=30.0, end_time=40.0)
    early = await make_moment(conn, video_id=video.id, start_time=10.0, end_time=20.0)
    assert await moments.find_overlapping_moment(video.id, 0.0, 100.0) == early
    assert await moments.find_overlapping_moment(video.id, 0.0, 100.0, excluded_moment_id=early.id) == late


async def test_a_moment_does_not_overlap_itself_when_it_is_excluded(conn: Connection) -> None:
    moment = await make_moment(conn)
    assert (
        await MomentRepository(conn).find_overlapping_moment(moment.video_id, 0.0, 100.0, excluded_moment_id=moment.id)
        is None
    )


async def test_a_moment_does_not_overlap_its_family_when_it_is_excluded(
    conn: Connection, statements: Statements
) -> None:
    original, moments = await make_moment(conn), MomentRepository(conn)
    video_id = original.video_id
    refined, other = [await make_moment(conn, video_id=video_id, parent_id=original.id) for _ in range(2)]
    again = await make_moment(conn, video_id=video_id, parent_id=refined.id)
    for member in (original, refined, other, again):
        with statements:
            assert await moments.find_overlapping_moment(video_id, 0.0, 100.0, excluded_moment_id=member.id) is None
        assert statements == 1
    stranger = await make_moment(conn, video_id=video_id, start_time=50.0, end_time=60.0)
    assert await moments.find_overlapping_moment(video_id, 0.0, 100.0, excluded_moment_id=again.id) == stranger


async def test_moments_that_are_each_others_parents_are_a_family(conn: Connection) -> None:
    first, moments = await make_moment(conn), MomentRepository(conn)
    second = await make_moment(conn, video_id=first.video_id, parent_id=first.id)
    await moments.update(first.id, parent_id=second.id)
    assert await moments.find_overlapping_moment(first.video_id, 0.0, 100.0, excluded_moment_id=first.id) is None


async def test_update_changes_only_what_is_given(conn: Connection, statements: Statements) -> None:
    moment, moments = await make_moment(conn, score=3, generation_model="qwen3"), MomentRepository(conn)
    with statements:
        changed = await moments.update(moment.id, title="New", score=None)
    assert statements == 1
    assert changed is not None
    assert (changed.title, changed.score, changed.generation_model) == ("New", None, "qwen3")
    assert await moments.get(moment.id) == changed


async def test_update_of_nothing_returns_the_row(conn: Connection, statements: Statements) -> None:
    moment = await make_moment(conn)
    with statements:
        assert await MomentRepository(conn).update(moment.id) == moment
    assert statements == 1


async def test_deleting_a_parent_leaves_what_was_refined_from_it(conn: Connection, statements: Statements) -> None:
    parent, moments = await make_moment(conn), MomentRepository(conn)
    child = await make_moment(conn, video_id=parent.video_id, parent_id=parent.id)
    with statements:
        assert await moments.delete(parent.id) is True
    assert statements == 1
    orphan = await moments.get(child.id)
    assert orphan is not None
    assert orphan.parent_id is None


async def test_a_tree_is_copied_in_one_statement_children_first(conn: Connection, statements: Statements) -> None:
    video, moments = await make_video(conn), MomentRepository(conn)
    with statements:
        ids = await moments.reserve_moment_ids(3)
        copied = await moments.insert_many(
            [_new(ids[2], video.id, parent_id=ids[0]), _new(ids[1], video.id, parent_id=ids[0]), _new(ids[0], video.id)]
        )
    assert statements == 2
    assert copied == 3
    assert [child.id for child in await moments.list_refinements_of(ids[0])] == ids[1:]


async def test_reserved_ids_are_nobody_elses(conn: Connection) -> None:
    moments = MomentRepository(conn)
    reserved = await moments.reserve_moment_ids(3)
    taken = {*reserved, *await moments.reserve_moment_ids(2), (await make_moment(conn)).id}
    assert reserved == sorted(reserved)
    assert len(taken) == 6
    assert await moments.reserve_moment_ids(0) == []


def _new(moment_id: int, video_id: int, **values: Any) -> Any:
    return {
        "id": moment_id,
        "identifier": make_random_moment_identifier(),
        "video_id": video_id,
        "start_time": 1.0,
        "end_time": 2.0,
        "title": "Copied",
        **values,
    }


async def test_the_owners_of_identifiers_are_found_and_free_ones_left_out(
    conn: Connection, statements: Statements
) -> None:
    ours, theirs = await make_moment(conn), await make_moment(conn)
    with statements:
        owners = await MomentRepository(conn).map_moment_identifiers_to_video_ids(
            [ours.identifier, theirs.identifier, "free"]
        )
    assert statements == 1
    assert owners == {ours.identifier: ours.video_id, theirs.identifier: theirs.video_id}
