"""`POST /api/search/clips`: moments and clips of what a search has found."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from app.core.config import Settings
from app.database import Connection, open_async_connection
from app.main import create_app
from app.services.search_index import index_if_little
from tests.api.conftest import share_routes
from tests.factories import make_moment, make_transcript, make_video
from tests.migrations.rows import fetch

_SENTENCES = (
    "Good morning.",
    "Today we bake bread with a sourdough starter.",
    "The dough rests overnight.",
    "Then it goes into the oven.",
)


async def make_talk(conn: Connection, name: str = "talk", *sentences: str, seconds: float = 600.0) -> int:
    """A video in which a word is said each second."""
    video = await make_video(conn, identifier=name, duration_seconds=seconds)
    text = " ".join(sentences or _SENTENCES)
    words = [{"word": word, "start": float(at), "end": at + 0.8} for at, word in enumerate(text.split())]
    await make_transcript(conn, video_id=video.id, full_text=text, word_timestamps=words)
    await index_if_little(conn)
    return video.id


async def make_clips(client: AsyncClient, *clips: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post("/api/search/clips", json={"clips": clips})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_a_hit_becomes_a_moment_of_its_sentence_and_a_run_for_its_clip(
    client: AsyncClient, conn: Connection
) -> None:
    await make_talk(conn)
    (hit,) = (await client.get("/api/search", params={"q": "sourdough"})).json()["hits"]
    assert hit["clip"] == {"video_id": "talk", "start_time": 8.0, "end_time": 8.8}
    made = await make_clips(client, hit["clip"])
    (moment,) = made["moments"]
    assert moment.pop("moment_id")
    assert moment == {
        "video_id": "talk",
        "start_time": 2.0,
        "end_time": 9.8,
        "title": "Today we bake bread with a sourdough starter.",
        "is_new": True,
    }
    (run,) = made["runs"]
    assert run["video_id"] == "talk"
    assert await fetch(conn, "SELECT start_time, end_time FROM moments") == [(2.0, 9.8)]


async def test_spans_of_one_sentence_share_a_moment_and_each_video_has_one_run(
    client: AsyncClient, conn: Connection
) -> None:
    for name in ("one", "two"):
        await make_talk(conn, name)
    spans = [("one", 3.0), ("two", 3.0), ("one", 7.0), ("one", 12.0)]
    made = await make_clips(
        client, *({"video_id": name, "start_time": start, "end_time": start + 0.8} for name, start in spans)
    )
    assert [(each["video_id"], each["start_time"]) for each in made["moments"]] == [
        ("one", 2.0),
        ("two", 2.0),
        ("one", 10.0),
    ]
    assert [run["video_id"] for run in made["runs"]] == ["one", "two"]


async def test_a_span_in_a_moment_that_exists_gets_no_other_one(client: AsyncClient, conn: Connection) -> None:
    video_id = await make_talk(conn)
    moment = await make_moment(conn, video_id=video_id, start_time=1.0, end_time=30.0, title="Bread")
    await make_moment(conn, video_id=video_id, start_time=0.5, end_time=29.0, parent_id=moment.id, is_refined=True)
    made = await make_clips(client, {"video_id": "talk", "start_time": 8.0, "end_time": 8.8})
    (found,) = made["moments"]
    assert (found["moment_id"], found["is_new"], found["title"]) == (moment.identifier, False, "Bread")


async def test_a_span_in_a_refined_moment_gets_the_original(client: AsyncClient, conn: Connection) -> None:
    video_id = await make_talk(conn)
    moment = await make_moment(conn, video_id=video_id, start_time=1.0, end_time=7.0)
    await make_moment(conn, video_id=video_id, start_time=0.5, end_time=9.0, parent_id=moment.id, is_refined=True)
    made = await make_clips(client, {"video_id": "talk", "start_time": 8.0, "end_time": 8.8})
    assert [(each["moment_id"], each["is_new"]) for each in made["moments"]] == [(moment.identifier, False)]


@pytest.mark.parametrize(
    ("moments", "span", "times"),
    [
        ([(1.0, 7.5)], (8.0, 8.8), (7.5, 9.8)),
        ([(1.0, 8.0)], (8.0, 8.8), (8.0, 9.8)),
        ([(9.0, 30.0)], (8.0, 8.8), (2.0, 9.0)),
        ([(8.5, 30.0)], (8.0, 8.8), (2.0, 8.5)),
        ([(3.0, 4.0), (5.0, 6.0), (9.5, 30.0), (40.0, 50.0)], (8.0, 8.8), (6.0, 9.5)),
        ([(2.0, 9.8)], (9.9, 9.9), (9.8, 10.9)),
        ([(2.0, 8.7), (9.2, 10.0)], (9.2, 9.4), None),
        ([(2.0, 8.9), (9.6, 30.0)], (9.0, 9.8), (9.6, 30.0)),
        ([(590.0, 599.5)], (599.9, 600.0), (599.5, 600.0)),
    ],
)
async def test_a_new_moment_ends_at_its_neighbours(
    client: AsyncClient,
    conn: Connection,
    moments: list[tuple[float, float]],
    span: tuple[float, float],
    times: tuple[float, float] | None,
) -> None:
    video_id = await make_talk(conn)
    for start, end in moments:
        await make_moment(conn, video_id=video_id, start_time=start, end_time=end)
    for is_new in (times not in (None, *moments), False):
        made = await make_clips(client, {"video_id": "talk", "start_time": span[0], "end_time": span[1]})
        (moment,) = made["moments"]
        assert (moment["start_time"], moment["end_time"]) == (times or moments[-1])
        assert moment["is_new"] is is_new


@pytest.mark.parametrize(
    ("span", "times"),
    [
        ((5.0, 400.0), (5.0, 125.0)),
        ((60.0, 165.0), (50.0, 170.0)),
        ((60.0, 178.0), (58.0, 178.0)),
        ((550.0, 900.0), (540.0, 600.0)),
    ],
)
async def test_a_moment_has_at_most_two_minutes(
    client: AsyncClient, conn: Connection, span: tuple[float, float], times: tuple[float, float]
) -> None:
    await make_talk(conn, "talk", "and then " * 300)
    made = await make_clips(client, {"video_id": "talk", "start_time": span[0], "end_time": span[1]})
    assert [(each["start_time"], each["end_time"]) for each in made["moments"]] == [times]


async def test_requests_at_once_for_the_same_videos_in_another_order_succeed(
    own_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    settings = Settings(log_level="error", database_url=own_database_url, redis_url=redis_url, data_dir=tmp_path)
    async with open_async_connection(settings) as conn:
        for name in ("one", "two"):
            await make_video(conn, identifier=name, duration_seconds=600.0)
    app = create_app(settings)
    share_routes(app)
    orders = [
        [{"video_id": name, "start_time": start, "end_time": start + 1} for name in names for start in range(0, 60, 2)]
        for names in (("one", "two"), ("two", "one"))
    ]
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://localhost", timeout=60) as client,
    ):
        answers = await asyncio.gather(
            *(client.post("/api/search/clips", json={"clips": order}) for order in orders),
        )
    assert [answer.status_code for answer in answers] == [201, 201]
    assert [answer.json()["moments"][0]["video_id"] for answer in answers] == ["one", "two"]


async def test_a_title_may_be_given(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    made = await make_clips(client, {"video_id": "talk", "start_time": 8.0, "end_time": 8.8, "title": "Sourdough"})
    assert made["moments"][0]["title"] == "Sourdough"


async def test_a_moment_ends_with_its_video(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn, seconds=9.0)
    made = await make_clips(client, {"video_id": "talk", "start_time": 8.0, "end_time": 8.8})
    assert made["moments"][0]["end_time"] == 9.0


async def test_a_long_sentence_is_cut_around_what_is_said(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn, "talk", "and then " * 100)
    made = await make_clips(client, {"video_id": "talk", "start_time": 100.0, "end_time": 101.0})
    assert (made["moments"][0]["start_time"], made["moments"][0]["end_time"]) == (90.0, 120.8)


async def test_without_a_transcript_the_span_itself_is_the_moment(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk", duration_seconds=60.0)
    made = await make_clips(client, {"video_id": "talk", "start_time": 5.0, "end_time": 5.0})
    assert [(each["start_time"], each["end_time"], each["title"]) for each in made["moments"]] == [(5.0, 6.0, "talk")]


@pytest.mark.parametrize(
    ("clip", "status", "detail"),
    [
        ({"video_id": "other", "start_time": 1, "end_time": 2}, 404, "Video not found: other"),
        (
            {"video_id": "talk", "start_time": 2, "end_time": 1},
            400,
            "A span of talk must not end before it begins, nor begin before the video",
        ),
        ({"video_id": "talk", "start_time": 1000, "end_time": 1001}, 400, "end_time must be"),
    ],
)
async def test_a_span_that_is_none_stores_nothing(
    client: AsyncClient, conn: Connection, clip: dict[str, Any], status: int, detail: str
) -> None:
    await make_talk(conn)
    good = {"video_id": "talk", "start_time": 8.0, "end_time": 8.8}
    answer = await client.post("/api/search/clips", json={"clips": [good, clip]})
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(detail)
    assert await fetch(conn, "SELECT count(*) FROM moments") == [(0,)]


@pytest.mark.parametrize("clips", [[], [{"video_id": "talk", "start_time": 0, "end_time": 1}] * 101, [{}], None])
async def test_a_body_that_names_no_spans_is_refused(client: AsyncClient, clips: object) -> None:
    assert (await client.post("/api/search/clips", json={"clips": clips})).status_code == 422
