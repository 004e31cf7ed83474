"""`GET` and `POST /api/videos/{id}/moments`."""

import asyncio
import re
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from app.core.config import Settings
from app.database import Connection, close_db, init_db, open_async_connection
from app.main import create_app
from app.repositories import MomentRepository
from tests.conftest import Statements
from tests.factories import make_generation_config, make_moment, make_prompt, make_transcript, make_video


async def test_a_moment_added_by_hand_has_no_model_and_no_config(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="demo-talk")
    answer = await client.post("/api/videos/demo-talk/moments", json={"start_time": 0, "end_time": 5, "title": "Intro"})
    assert answer.status_code == 201
    moment = answer.json()
    assert re.fullmatch("[0-9a-f]{16}", moment.pop("id"))
    assert moment == {
        "start_time": 0.0,
        "end_time": 5.0,
        "title": "Intro",
        "is_refined": False,
        "parent_id": None,
        "model_name": None,
        "generation_config": None,
    }


async def test_what_was_added_is_listed(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    added = [(await _add(client, start=start, end=start + 5)).json() for start in (50, 10)]
    assert (await client.get("/api/videos/talk/moments")).json() == added


async def test_a_video_without_moments_has_an_empty_array(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    assert (await client.get("/api/videos/talk/moments")).json() == []


async def test_moments_of_an_unknown_video_are_404(client: AsyncClient) -> None:
    assert (await client.get("/api/videos/nobody/moments")).status_code == 404
    assert (await _add(client, video="nobody")).status_code == 404
    assert (await _add(client, video="nobody", title=" ")).status_code == 404


async def test_a_config_leaves_out_what_is_unknown(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    prompt = await make_prompt(conn, user_prompt='Find "the best"', system_prompt="You watch videos.")
    known = {"model": "qwen3_vl_fp8", "operation_type": "generation", "min_moment_length": 30, "max_moments": 3}
    config = await make_generation_config(conn, prompt_id=prompt.id, temperature=None, **known)
    await make_moment(conn, video_id=video.id, generation_config_id=config.id, generation_model="served/model")
    (moment,) = (await client.get("/api/videos/talk/moments")).json()
    assert moment["model_name"] == "served/model"
    assert moment["generation_config"] == known | {"user_prompt": 'Find "the best"'}


async def test_what_was_refined_step_by_step_is_shown_under_its_original(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    original = await make_moment(conn, video_id=video.id)
    above = original
    for _ in range(3):
        above = await make_moment(conn, video_id=video.id, parent_id=above.id, is_refined=True)
    shown = (await client.get("/api/videos/talk/moments")).json()
    assert [moment["parent_id"] for moment in shown] == [None, *[original.identifier] * 3]
    answer = await client.patch(f"/api/videos/talk/moments/{above.identifier}", json={"title": "Renamed"})
    assert answer.json()["parent_id"] == original.identifier


async def test_moments_that_are_refined_from_each_other_are_shown_as_they_are(
    client: AsyncClient, conn: Connection
) -> None:
    video = await make_video(conn, identifier="talk")
    one = await make_moment(conn, video_id=video.id, is_refined=True)
    other = await make_moment(conn, video_id=video.id, is_refined=True, parent_id=one.id)
    last = await make_moment(conn, video_id=video.id, is_refined=True, parent_id=other.id)
    await MomentRepository(conn).update(one.id, parent_id=other.id)
    shown = (await client.get("/api/videos/talk/moments")).json()
    assert [moment["parent_id"] for moment in shown] == [other.identifier, one.identifier, other.identifier]
    assert shown[2]["id"] == last.identifier


async def test_a_refined_moment_names_its_parent_by_its_public_id(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    parent = await make_moment(conn, video_id=video.id)
    await make_moment(conn, video_id=video.id, parent_id=parent.id, is_refined=True)
    _, refined = (await client.get("/api/videos/talk/moments")).json()
    assert (refined["parent_id"], refined["is_refined"]) == (parent.identifier, True)


async def test_moments_are_listed_in_one_statement(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    video = await make_video(conn, identifier="talk")
    for start in range(20):
        await make_moment(conn, video_id=video.id, start_time=start, end_time=start + 1)
    with statements:
        assert len((await client.get("/api/videos/talk/moments")).json()) == 20
    assert statements == 1


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"title": "  "}, "title must be a non-empty string"),
        ({"title": "", "start_time": -1}, "title must be a non-empty string"),
        ({"start_time": -0.1}, "start_time must be >= 0"),
        ({"end_time": 30.1}, "end_time must be <= video duration (30.0 seconds)"),
        ({"start_time": 40, "end_time": 31}, "end_time must be <= video duration (30.0 seconds)"),
        ({"start_time": 5, "end_time": 5}, "end_time must be greater than start_time"),
        ({"start_time": 11, "end_time": 20}, "Moment overlaps with existing moment 'Intro' (10.0s - 12.0s)"),
    ],
)
async def test_the_first_broken_rule_is_named(
    client: AsyncClient, conn: Connection, body: dict[str, Any], detail: str
) -> None:
    video = await make_video(conn, identifier="talk", duration_seconds=30.0)
    await make_moment(conn, video_id=video.id, start_time=10, end_time=12, title="Intro")
    answer = await client.post("/api/videos/talk/moments", json={"start_time": 0, "end_time": 5, "title": "x"} | body)
    assert (answer.status_code, answer.json()) == (400, {"detail": detail})


async def test_a_moment_is_at_most_two_minutes_long(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk", duration_seconds=300.0)
    assert (await _add(client, start=0, end=120)).status_code == 201
    answer = await _add(client, start=130, end=260)
    assert answer.json()["detail"] == "Moment duration (130.0 seconds) exceeds maximum of 120 seconds (2 minutes)"


async def test_moments_may_touch(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    assert (await _add(client, start=10, end=20)).status_code == 201
    assert (await _add(client, start=20, end=30)).status_code == 201
    assert (await _add(client, start=0, end=10)).status_code == 201


async def test_a_moment_may_end_with_the_video_and_may_not_know_its_length(
    client: AsyncClient, conn: Connection
) -> None:
    await make_video(conn, identifier="talk", duration_seconds=30.0)
    assert (await _add(client, start=20, end=30)).status_code == 201
    await make_video(conn, identifier="no-file", duration_seconds=None)
    assert (await _add(client, video="no-file", start=9000, end=9010)).status_code == 201


@pytest.mark.parametrize("duration", [20.1, 20.0999, 20.05, 20.149, 20.0, 0.04])
async def test_the_limit_that_a_refusal_names_is_accepted(
    client: AsyncClient, conn: Connection, duration: float
) -> None:
    await make_video(conn, identifier="talk", duration_seconds=duration)
    detail = (await _add(client, start=0, end=duration + 0.1)).json()["detail"]
    limit = float(detail.removeprefix("end_time must be <= video duration (").removesuffix(" seconds)"))
    answer = await _add(client, start=0, end=limit)
    assert answer.status_code == 201, detail
    assert duration - 0.1 < answer.json()["end_time"] <= duration


async def test_an_end_that_rounding_has_put_after_that_of_the_video_is_that_of_the_video(
    client: AsyncClient, conn: Connection
) -> None:
    await make_video(conn, identifier="talk", duration_seconds=20.0999)
    assert (await _add(client, start=5, end=20.1)).json()["end_time"] == 20.0999
    assert (await client.get("/api/videos/talk/moments")).json()[0]["end_time"] == 20.0999


async def test_a_moment_that_begins_at_the_end_of_the_video_is_refused(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk", duration_seconds=20.0)
    problem = "end_time must be <= video duration (20.0 seconds)"
    for start in (20.0, 20.001):
        answer = await _add(client, start=start, end=20.004)
        assert (answer.status_code, answer.json()["detail"]) == (400, problem)
    identifier = (await _add(client, start=5, end=10)).json()["id"]
    answer = await client.patch(
        f"/api/videos/talk/moments/{identifier}", json={"start_time": 20.001, "end_time": 20.004}
    )
    assert (answer.status_code, answer.json()["detail"]) == (400, problem)


async def test_a_moment_may_touch_the_times_that_a_refusal_names(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    await make_moment(conn, video_id=video.id, start_time=20.04, end_time=30.0600000001, title="Middle")
    answer = await _add(client, start=25, end=35)
    assert answer.json()["detail"] == "Moment overlaps with existing moment 'Middle' (20.0s - 30.1s)"
    assert (await _add(client, start=30.1, end=35)).status_code == 201
    assert (await _add(client, start=10, end=20.0)).status_code == 201


async def test_times_that_overlap_by_rounding_alone_touch(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk", duration_seconds=45.0)
    await make_moment(conn, video_id=video.id, start_time=10, end_time=20.0000000000001)
    await make_moment(conn, video_id=video.id, start_time=29.9999999999999, end_time=40)
    moment = (await _add(client, start=20, end=30)).json()
    assert (moment["start_time"], moment["end_time"]) == (20.0000000000001, 29.9999999999999)


async def test_a_length_is_refused_as_what_is_above_the_limit(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk", duration_seconds=300.0)
    answer = await _add(client, start=0, end=120.03)
    assert answer.json()["detail"] == "Moment duration (120.1 seconds) exceeds maximum of 120 seconds (2 minutes)"
    assert (await _add(client, start=100.1, end=220.1)).status_code == 201


async def test_a_title_is_stored_as_it_was_sent(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    assert (await _add(client, title="  Ünï – ‘quoted’ ")).json()["title"] == "  Ünï – ‘quoted’ "


async def test_numbers_may_come_as_text_and_other_fields_are_ignored(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    body = {"start_time": "1.5", "end_time": "2", "title": "x", "id": "mine", "is_refined": True, "parent_id": "abc"}
    moment = (await client.post("/api/videos/talk/moments", json=body)).json()
    assert (moment["start_time"], moment["is_refined"], moment["parent_id"]) == (1.5, False, None)
    assert moment["id"] != "mine"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"start_time": 1, "end_time": 2}', "title is missing"),
        (b'{"start_time": false, "end_time": 2, "title": "x"}', "start_time must be a number, not false"),
        (b'{"start_time": NaN, "end_time": 2, "title": "x"}', "start_time must be a finite number, not NaN"),
        (b'{"start_time": 1, "end_time": 1e999, "title": "x"}', "end_time must be a finite number, not infinity"),
        (b'{"start_time": 1, "end_time": 2, "title": "a\\u0000b"}', "title must not hold the character U+0000"),
        (b"{", "The body is not valid JSON"),
        (b"[]", "The body must be a JSON object, not a list"),
    ],
)
async def test_bad_bodies_get_422_and_one_sentence(
    client: AsyncClient, conn: Connection, body: bytes, detail: str
) -> None:
    await make_video(conn, identifier="talk")
    answer = await client.post("/api/videos/talk/moments", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()) == (422, {"detail": detail})


async def test_lone_surrogates_and_endless_titles_get_422(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    for title in (r"\ud800", "x" * 501):
        body = f'{{"start_time": 1, "end_time": 2, "title": "{title}"}}'
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/api/videos/talk/moments", content=body, headers=headers)
        assert answer.status_code == 422
        assert isinstance(answer.json()["detail"], str)


async def test_fifty_clients_adding_one_span_at_once_make_one_row(own_database_url: str) -> None:
    settings = Settings(database_url=own_database_url, log_level="error")
    async with open_async_connection(settings) as conn:
        await make_video(conn, identifier="talk")
        await make_video(conn, identifier="copy")
    await init_db(settings)
    try:
        async with AsyncClient(transport=ASGITransport(create_app(settings)), base_url="http://localhost") as client:
            answers = await asyncio.gather(*(_add(client, start=10, end=20) for _ in range(50)))
            elsewhere = await _add(client, video="copy", start=10, end=20)
    finally:
        await close_db()
    assert sorted(answer.status_code for answer in answers) == [201] + [400] * 49
    (added,) = (answer.json() for answer in answers if answer.status_code == 201)
    assert elsewhere.json()["id"] != added["id"]
    await init_db(settings)  # as after a restart
    try:
        async with AsyncClient(transport=ASGITransport(create_app(settings)), base_url="http://localhost") as client:
            assert (await client.get("/api/videos/talk/moments")).json() == [added]
    finally:
        await close_db()


async def test_adding_a_moment_is_one_statement(client: AsyncClient, conn: Connection, statements: Statements) -> None:
    await make_video(conn, identifier="talk")
    with statements:
        await _add(client)
    assert statements == 1


async def _add(client: AsyncClient, video: str = "talk", start: float = 0, end: float = 5, title: str = "Intro") -> Any:
    body = {"start_time": start, "end_time": end, "title": title}
    return await client.post(f"/api/videos/{video}/moments", json=body)


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        (
            {"segment_timestamps": [{"text": "a", "start": 1.0, "end": 30.5}, {"text": "b", "start": 2, "end": 4}]},
            "30.5",
        ),
        ({"segment_timestamps": [], "word_timestamps": [{"word": "a", "start": 1.0, "end": 12}]}, "12.0"),
        ({"segment_timestamps": [{"end": None}, {"end": "9"}, {}, 5], "word_timestamps": []}, None),
    ],
)
async def test_a_moment_of_a_video_without_a_file_ends_with_its_transcript(
    client: AsyncClient, conn: Connection, said: dict[str, Any], limit: str | None
) -> None:
    video = await make_video(conn, identifier="talk", duration_seconds=None)
    await make_transcript(conn, video_id=video.id, **({"word_timestamps": []} | said))
    path, body = "/api/videos/talk/moments", {"start_time": 1, "end_time": 31, "title": "x"}
    answer = await client.post(path, json=body)
    if limit is None:
        assert answer.status_code == 201
        return
    refused = (400, {"detail": f"end_time must be <= video duration ({limit} seconds)"})
    assert (answer.status_code, answer.json()) == refused
    added = await client.post(path, json=body | {"end_time": float(limit)})
    assert added.status_code == 201
    edited = await client.patch(f"{path}/{added.json()['id']}", json={"end_time": 31})
    assert (edited.status_code, edited.json()) == refused


async def test_a_moment_of_a_file_whose_duration_is_not_known_may_end_after_the_last_word(
    client: AsyncClient, conn: Connection
) -> None:
    video = await make_video(conn, identifier="talk", duration_seconds=None, video_codec="vp8")
    await make_transcript(conn, video_id=video.id)
    answer = await client.post("/api/videos/talk/moments", json={"start_time": 0, "end_time": 30, "title": "x"})
    assert answer.status_code == 201
