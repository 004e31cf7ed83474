"""`PATCH /api/videos/{id}/moments/{mid}`."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient, Response

from app.core.config import Settings
from app.database import Connection, close_db, init_db, open_async_connection
from app.main import create_app
from app.models import Moment
from app.repositories import MomentRepository, VideoRepository
from tests.factories import make_clip, make_generation_config, make_moment, make_video


async def test_an_edited_moment_is_answered_and_listed_as_it_is_now(client: AsyncClient, conn: Connection) -> None:
    moment = await _moment(conn)
    answer = await _edit(client, moment, title=" New ", start_time=5, end_time="15.5")
    assert answer.status_code == 200
    assert answer.json() == {
        "id": moment.identifier,
        "start_time": 5.0,
        "end_time": 15.5,
        "title": " New ",
        "is_refined": False,
        "parent_id": None,
        "model_name": None,
        "generation_config": None,
    }
    assert (await client.get("/api/videos/talk/moments")).json() == [answer.json()]


async def test_a_generated_moment_keeps_its_config_and_its_parent(client: AsyncClient, conn: Connection) -> None:
    parent = await _moment(conn)
    config = await make_generation_config(conn)
    refined = await _relative(conn, parent, parent_id=parent.id, is_refined=True, generation_config_id=config.id)
    edited = (await _edit(client, refined, title="New")).json()
    assert edited == (await client.get("/api/videos/talk/moments")).json()[1]
    assert (edited["title"], edited["parent_id"]) == ("New", parent.identifier)
    assert edited["generation_config"]["model"] == config.model


@pytest.mark.parametrize(
    ("edit", "detail"),
    [
        ({"title": "  "}, "title must be a non-empty string"),
        ({"title": "", "start_time": -1}, "title must be a non-empty string"),
        ({"start_time": -0.1, "end_time": 99}, "start_time must be >= 0"),
        ({"end_time": 200.1}, "end_time must be <= video duration (200.0 seconds)"),
        ({"start_time": 20}, "end_time must be greater than start_time"),
        ({"end_time": 140}, "Moment duration (130.0 seconds) exceeds maximum of 120 seconds (2 minutes)"),
        ({"end_time": 31}, "Moment overlaps with existing moment 'Other' (30.0s - 40.0s)"),
    ],
)
async def test_the_first_broken_rule_is_named_and_nothing_changes(
    client: AsyncClient, conn: Connection, edit: dict[str, Any], detail: str
) -> None:
    moment = await _moment(conn)
    await _relative(conn, moment, start_time=30.0, end_time=40.0, title="Other")
    answer = await _edit(client, moment, **edit)
    assert (answer.status_code, answer.json()) == (400, {"detail": detail})
    assert await MomentRepository(conn).get(moment.id) == moment


async def test_a_moment_may_lie_over_its_family(client: AsyncClient, conn: Connection) -> None:
    original = await _moment(conn)
    refined = await _relative(conn, original, parent_id=original.id)
    again = await _relative(conn, original, parent_id=refined.id)
    for member in (original, refined, again):
        assert (await _edit(client, member, start_time=11, end_time=21)).status_code == 200


async def test_new_times_may_be_rounded(client: AsyncClient, conn: Connection) -> None:
    moment = await _moment(conn)
    await VideoRepository(conn).update(moment.video_id, duration_seconds=40.0996)
    await _relative(conn, moment, start_time=30.0, end_time=35.0004)
    answer = await _edit(client, moment, start_time=35, end_time=40.1)
    assert (answer.json()["start_time"], answer.json()["end_time"]) == (35.0004, 40.0996)


async def test_only_new_times_are_judged(client: AsyncClient, conn: Connection) -> None:
    moment = await _moment(conn, start_time=10.0, end_time=150.0)
    await _relative(conn, moment, start_time=20.0, end_time=30.0)
    assert (await _edit(client, moment, title="New", start_time=10, end_time=150)).status_code == 200


async def test_a_moment_may_touch_another_and_end_with_the_video(client: AsyncClient, conn: Connection) -> None:
    moment = await _moment(conn)
    await _relative(conn, moment, start_time=30.0, end_time=100.0)
    assert (await _edit(client, moment, end_time=30)).status_code == 200
    assert (await _edit(client, moment, start_time=100, end_time=200)).status_code == 200


async def test_a_score_is_stored_with_its_model_and_its_time(client: AsyncClient, conn: Connection) -> None:
    moment = await _moment(conn)
    answer = await _edit(client, moment, score=7, scoring_model="judge")
    assert (answer.status_code, answer.json()["score"], answer.json()["scoring_model"]) == (200, 7, "judge")
    scored = await _stored(conn, moment)
    assert (scored.score, scored.scoring_model) == (7, "judge")
    assert scored.scored_at is not None
    assert abs(scored.scored_at - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=1)


async def test_a_list_shows_a_score_where_there_is_one(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    await make_moment(conn, video_id=video.id)
    await make_moment(conn, video_id=video.id, score=7, scoring_model="judge")
    plain, scored = (await client.get("/api/videos/talk/moments")).json()
    assert not plain.keys() & {"score", "scoring_model"}
    assert (scored["score"], scored["scoring_model"]) == (7, "judge")


@pytest.mark.parametrize("edit", [{"score": None}, {"score": None, "scoring_model": None}])
async def test_a_score_of_null_clears_what_belongs_to_it(
    client: AsyncClient, conn: Connection, edit: dict[str, None]
) -> None:
    moment = await _moment(conn, score=7, scoring_model="judge", scored_at=datetime(2026, 2, 8))
    assert (await _edit(client, moment, **edit)).status_code == 200
    cleared = await _stored(conn, moment)
    assert (cleared.score, cleared.scoring_model, cleared.scored_at) == (None, None, None)


async def test_a_new_title_leaves_the_score_alone(client: AsyncClient, conn: Connection) -> None:
    moment = await _moment(conn, score=7, scoring_model="judge", scored_at=datetime(2026, 2, 8))
    await _edit(client, moment, title="New")
    assert (await _stored(conn, moment)).scored_at == moment.scored_at


async def test_what_is_given_as_it_is_writes_nothing(client: AsyncClient, conn: Connection) -> None:
    moment = await _moment(conn, score=7, scoring_model="judge")
    cursor = await conn.execute("SELECT xmin, ctid FROM moments")
    before = await cursor.fetchall()
    answer = await _edit(client, moment, title=moment.title, start_time=10, score=7, scoring_model="judge")
    assert (answer.status_code, answer.json()["title"]) == (200, moment.title)
    cursor = await conn.execute("SELECT xmin, ctid FROM moments")
    assert await cursor.fetchall() == before


async def test_a_clip_stays_as_it_is_when_its_moment_moves(client: AsyncClient, conn: Connection) -> None:
    moment = await _moment(conn)
    clip = await make_clip(conn, moment)
    assert (await _edit(client, moment, start_time=100, end_time=110)).status_code == 200
    cursor = await conn.execute("SELECT id, start_time, end_time FROM clips")
    assert await cursor.fetchall() == [(clip.id, 10.0, 20.0)]


async def test_what_is_not_there_is_404(client: AsyncClient, conn: Connection) -> None:
    moment, elsewhere = await _moment(conn), await make_moment(conn)
    for path, detail in {
        f"nobody/moments/{moment.identifier}": "Video not found",
        "talk/moments/null": "Moment not found",
        f"talk/moments/{elsewhere.identifier}": "Moment not found",
    }.items():
        answer = await client.patch(f"/api/videos/{path}", json={"title": " "})
        assert (answer.status_code, answer.json()) == (404, {"detail": detail})


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("{}", "At least one of title, start_time, end_time and score must be given"),
        (
            '{"id": "mine"}',
            "id is no field of this request; there are: title, start_time, end_time, score, scoring_model",
        ),
        (
            '{"' + 5000 * "x" + '": 1}',
            100 * "x" + " is no field of this request; there are: title, start_time, end_time, score, scoring_model",
        ),
        ('{"title": null}', "title must be text, not null"),
        ('{"end_time": null}', "end_time must be a number, not null"),
        ('{"end_time": NaN}', "end_time must be a finite number, not NaN"),
        ('{"score": 7}', "score and scoring_model must be given together"),
        ('{"scoring_model": "judge"}', "score and scoring_model must be given together"),
        ('{"scoring_model": null}', "score and scoring_model must be given together"),
        ('{"score": 11, "scoring_model": "judge"}', "score must be 10 or less, not 11"),
        ('{"score": [], "scoring_model": "judge"}', "score must be a whole number, not a list"),
        ('{"score": true, "scoring_model": "judge"}', "score must be a whole number, not true"),
        ('{"end_time": true}', "end_time must be a number, not true"),
        ('{"title": "a\\u0000b"}', "title must not hold the character U+0000"),
        ("[]", "The body must be a JSON object, not a list"),
        ("", "The body is missing"),
    ],
)
async def test_a_bad_body_is_422_and_changes_nothing(
    client: AsyncClient, conn: Connection, body: str, detail: str
) -> None:
    moment = await _moment(conn)
    headers = {"Content-Type": "application/json"}
    answer = await client.patch(f"/api/videos/talk/moments/{moment.identifier}", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (422, {"detail": detail})
    assert await _stored(conn, moment) == moment


@pytest.mark.parametrize("value", [r'"\ud800"', f'"{"x" * 501}"', "1" * 5000])
async def test_a_title_that_cannot_be_stored_is_422(client: AsyncClient, conn: Connection, value: str) -> None:
    moment = await _moment(conn)
    headers = {"Content-Type": "application/json"}
    answer = await client.patch(
        f"/api/videos/talk/moments/{moment.identifier}", content=f'{{"title": {value}}}', headers=headers
    )
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


async def test_of_two_that_move_to_one_place_at_once_one_wins(own_database_url: str) -> None:
    settings = Settings(database_url=own_database_url, log_level="error")
    async with open_async_connection(settings) as conn:
        video = await make_video(conn, identifier="talk")
        moments = [
            await make_moment(conn, video_id=video.id, start_time=10.0 * number, end_time=10.0 * number + 5)
            for number in range(10)
        ]
    await init_db(settings)
    try:
        async with AsyncClient(transport=ASGITransport(create_app(settings)), base_url="http://localhost") as client:
            answers = await asyncio.gather(*(_edit(client, moment, start_time=200, end_time=210) for moment in moments))
            listed = (await client.get("/api/videos/talk/moments")).json()
    finally:
        await close_db()
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 9
    assert len([moment for moment in listed if moment["start_time"] == 200]) == 1


async def _moment(conn: Connection, **values: Any) -> Moment:
    """A moment from 10 to 20 s of the video `talk`, which has 200 s."""
    video = await make_video(conn, identifier="talk", duration_seconds=200.0)
    return await make_moment(conn, video_id=video.id, **values)


async def _relative(conn: Connection, moment: Moment, **values: Any) -> Moment:
    return await make_moment(conn, video_id=moment.video_id, **values)


async def _stored(conn: Connection, moment: Moment) -> Moment:
    stored = await MomentRepository(conn).get(moment.id)
    assert stored is not None
    return stored


async def _edit(client: AsyncClient, moment: Moment, **edit: Any) -> Response:
    return await client.patch(f"/api/videos/talk/moments/{moment.identifier}", json=edit)
