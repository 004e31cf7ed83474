"""`GET /api/search`."""

from typing import Any

import pytest
from httpx import AsyncClient

from app.database import Connection
from tests.conftest import Statements
from tests.factories import make_transcript, make_video


async def make_talk(conn: Connection, identifier: str, *sentences: str) -> None:
    """A video whose transcript is the sentences, one segment of ten seconds each."""
    video = await make_video(conn, identifier=identifier)
    segments = [{"text": text, "start": 10.0 * n, "end": 10.0 * n + 9} for n, text in enumerate(sentences)]
    await make_transcript(conn, video_id=video.id, full_text=" ".join(sentences), segment_timestamps=segments)


async def search(client: AsyncClient, q: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = await client.get("/api/search", params={"q": q, **parameters})
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, Any]] = answer.json()["hits"]
    return hits


async def test_a_hit_says_where_a_player_can_jump(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn, "demo-talk", "Nothing here.", "Machines are learning.", "They learned a lot.", "The end.")
    (hit,) = await search(client, "learn")
    assert hit["video_id"] == "demo-talk"
    assert hit["video_title"] == "Demo Talk"
    assert hit["snippet"] == "Machines are <mark>learning</mark>."
    assert hit["segments"] == [{"start_time": 10.0, "end_time": 19.0}, {"start_time": 20.0, "end_time": 29.0}]
    assert hit["rank"] > 0


async def test_the_best_hit_comes_first(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn, "once", "Coffee is fine.", "Tea is better.")
    await make_talk(conn, "often", "Coffee, coffee and coffee.", "More coffee.")
    assert [hit["video_id"] for hit in await search(client, "coffee")] == ["often", "once"]
    assert [hit["video_id"] for hit in await search(client, "coffee", limit=1)] == ["often"]


async def test_words_may_stand_in_different_segments(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn, "both", "Coffee is fine.", "Tea is better.")
    await make_talk(conn, "one", "Coffee is fine.")
    (hit,) = await search(client, "coffee tea")
    assert hit["video_id"] == "both"
    assert len(hit["segments"]) == 2


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('"machine learning"', ["phrase"]),
        ("machine learning", ["apart", "phrase"]),
        ("machine -learning", ["machine"]),
        ('machine -"machine learning"', ["apart", "machine"]),
        ("learning or coffee", ["apart", "coffee", "phrase"]),
        ('"the machine" learning', ["apart", "phrase"]),
        ("-machine", ["coffee"]),
        ("the of and", []),
        ("nothinglikethis", []),
        ("'", []),
        ('") or 1=1; --', []),
        ("a & | ! <-> b:*", []),
    ],
)
async def test_a_query_is_what_people_type(client: AsyncClient, conn: Connection, query: str, found: list[str]) -> None:
    await make_talk(conn, "phrase", "The machine learning of today.")
    await make_talk(conn, "apart", "Learning about the machine.")
    await make_talk(conn, "machine", "One machine.")
    await make_talk(conn, "coffee", "Coffee.")
    assert sorted(hit["video_id"] for hit in await search(client, query)) == found


async def test_a_snippet_is_safe_to_put_into_a_page(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn, "talk", "<script>alert('coffee')</script> & coffee")
    (hit,) = await search(client, "coffee")
    assert "<script>" not in hit["snippet"]
    assert hit["snippet"].replace("<mark>", "").replace("</mark>", "").count("<") == 0
    assert "<mark>coffee</mark>" in hit["snippet"]


async def test_a_transcript_without_segments_is_found_by_its_text(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn)
    await make_transcript(conn, video_id=video.id, full_text="All about coffee beans.", segment_timestamps=[])
    (hit,) = await search(client, "bean")
    assert hit["snippet"] == "All about coffee <mark>beans</mark>."
    assert hit["segments"] == []


async def test_a_search_is_one_statement(client: AsyncClient, conn: Connection, statements: Statements) -> None:
    for number in range(5):
        await make_talk(conn, f"talk-{number}", "Coffee.")
    with statements:
        assert len(await search(client, "coffee")) == 5
    assert statements == 1


@pytest.mark.parametrize("query", ["q=", "", "q=a&limit=0", "q=a&limit=101", "q=a&limit=x", "q=" + "x" * 1001, "q=%00"])
async def test_bad_queries_get_422_and_one_sentence(client: AsyncClient, query: str) -> None:
    answer = await client.get(f"/api/search?{query}")
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


async def test_marks_in_a_text_are_not_taken_for_ours(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn, "talk", "evil \x02script\x03 coffee \x02")
    (hit,) = await search(client, "coffee")
    assert hit["snippet"].strip() == "evil script <mark>coffee</mark>"
