"""`GET /api/search`."""

from typing import Any

import pytest
from httpx import AsyncClient

from app.database import Connection
from app.services.cursors import encode_cursor
from tests.conftest import Statements
from tests.factories import make_moment, make_transcript, make_video


async def make_talk(conn: Connection, identifier: str, *sentences: str, language: str = "en") -> int:
    """A video whose transcript is the sentences, one segment of ten seconds each."""
    video = await make_video(conn, identifier=identifier)
    segments = [{"text": text, "start": 10.0 * n, "end": 10.0 * n + 9} for n, text in enumerate(sentences)]
    text = " ".join(sentences)
    await make_transcript(conn, video_id=video.id, full_text=text, segment_timestamps=segments, language=language)
    return video.id


async def search_all(client: AsyncClient, q: str, **parameters: Any) -> dict[str, Any]:
    answer = await client.get("/api/search", params={"q": q, **parameters})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def search(client: AsyncClient, q: str, **parameters: Any) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = (await search_all(client, q, **parameters))["hits"]
    return hits


async def list_moments(client: AsyncClient, q: str, **parameters: Any) -> list[str]:
    """The titles of the moments that are found."""
    return [moment["title"] for moment in (await search_all(client, q, **parameters))["moments"]]


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


async def test_a_search_is_one_statement_for_each_list(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    for number in range(5):
        await make_talk(conn, f"talk-{number}", "Coffee.")
    with statements:
        assert len(await search(client, "coffee")) == 5
    assert statements == 2


@pytest.mark.parametrize(
    "query",
    [
        *("q=", "", "q=a&limit=0", "q=a&limit=101", "q=a&limit=x", "q=" + "x" * 1001, "q=%00"),
        *("q=a&video=%00", "q=a&language=%00", "q=a&language=eleven-long", "q=a&video=" + "x" * 256),
        *("q=a&min_score=-1", "q=a&min_score=11", "q=a&min_score=1.5", "q=a&min_score=99999999999999999999"),
    ],
)
async def test_bad_queries_get_422_and_one_sentence(client: AsyncClient, query: str) -> None:
    answer = await client.get(f"/api/search?{query}")
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


async def test_marks_in_a_text_are_not_taken_for_ours(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn, "talk", "evil \x02script\x03 coffee \x02")
    (hit,) = await search(client, "coffee")
    assert hit["snippet"].strip() == "evil script <mark>coffee</mark>"


async def test_a_moment_is_found_by_its_title(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="demo-talk")
    times = {"start_time": 1.5, "end_time": 9.0}
    moment = await make_moment(conn, video_id=video.id, title="Machines & <b>learning</b>", score=7, **times)
    await make_moment(conn, video_id=video.id, title="Another")
    (found,) = (await search_all(client, "learn"))["moments"]
    rank = found.pop("rank")
    assert rank > 0
    assert found == {
        "video_id": "demo-talk",
        "video_title": "Demo Talk",
        "moment_id": moment.identifier,
        "title": "Machines & <b>learning</b>",
        "snippet": "Machines &amp; &lt;b&gt;<mark>learning</mark>&lt;/b&gt;",
        "start_time": 1.5,
        "end_time": 9.0,
        "score": 7,
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('"machine learning"', ["The machine learning"]),
        ("machine learning", ["Learning by machine", "The machine learning"]),
        ("machine -learning", ["Machine"]),
        ("coffee or machine -learning", ["Coffee", "Machine"]),
        ("the", []),
    ],
)
async def test_titles_are_searched_as_transcripts_are(
    client: AsyncClient, conn: Connection, query: str, found: list[str]
) -> None:
    for title in ("The machine learning", "Learning by machine", "Machine", "Coffee"):
        await make_moment(conn, title=title)
    assert sorted(await list_moments(client, query)) == found


async def test_a_search_in_one_video_finds_nothing_of_the_others(client: AsyncClient, conn: Connection) -> None:
    for name in ("one", "two"):
        video_id = await make_talk(conn, name, "Coffee.")
        await make_moment(conn, video_id=video_id, title=f"Coffee {name}")
    assert [hit["video_id"] for hit in await search(client, "coffee", video="two")] == ["two"]
    assert await list_moments(client, "coffee", video="two") == ["Coffee two"]
    assert await search_all(client, "coffee", video="nobody") == {
        "query": "coffee",
        "hits": [],
        "moments": [],
        "next_cursor": None,
    }


async def test_a_language_is_that_of_the_transcript(client: AsyncClient, conn: Connection) -> None:
    for language in ("en", "de"):
        video_id = await make_talk(conn, language, "Coffee.", language=language)
        await make_moment(conn, video_id=video_id, title=f"Coffee {language}")
    await make_moment(conn, title="Coffee without a word")
    assert [hit["video_id"] for hit in await search(client, "coffee", language="de")] == ["de"]
    assert await list_moments(client, "coffee", language="de") == ["Coffee de"]


async def test_a_least_score_asks_for_moments_that_have_it_and_for_videos_that_have_such_a_moment(
    client: AsyncClient, conn: Connection
) -> None:
    for name, score in (("good", 8), ("fair", 7), ("unknown", None)):
        video_id = await make_talk(conn, name, "Coffee.")
        await make_moment(conn, video_id=video_id, title=f"Coffee {name}", score=score)
        await make_moment(conn, video_id=video_id, title="Other", start_time=50.0, end_time=51.0, score=0)
    assert [hit["video_id"] for hit in await search(client, "coffee", min_score=8)] == ["good"]
    assert await list_moments(client, "coffee", min_score=8) == ["Coffee good"]
    assert len(await search(client, "coffee", min_score=0)) == 3


async def test_all_pages_together_have_each_hit_once_in_the_order_of_one_page(
    client: AsyncClient, conn: Connection
) -> None:
    for number in range(7):
        video_id = await make_talk(conn, f"talk-{number}", *["Coffee."] * (1 + number % 2))
        for place in range(number % 4):
            title = "Coffee" if place else "Coffee and coffee"
            await make_moment(conn, video_id=video_id, title=title, start_time=20.0 * place, end_time=20.0 * place + 5)
    whole = await search_all(client, "coffee")
    assert (len(whole["hits"]), len(whole["moments"]), whole["next_cursor"]) == (7, 9, None)
    for limit in (1, 2, 3, 7, 8):
        pages = [await search_all(client, "coffee", limit=limit)]
        while cursor := pages[-1]["next_cursor"]:
            pages.append(await search_all(client, "coffee", limit=limit, cursor=cursor))
        assert len(pages) == -(-9 // limit)
        for name in ("hits", "moments"):
            assert all(len(page[name]) <= limit for page in pages)
            assert [hit for page in pages for hit in page[name]] == whole[name]


async def test_a_list_that_has_ended_is_not_searched_again(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    for number in range(3):
        await make_moment(conn, title=f"Coffee {number}")
    first = await search_all(client, "coffee", limit=2)
    with statements:
        await search_all(client, "coffee", limit=2, cursor=first["next_cursor"])
    assert statements == 1


async def test_a_cursor_belongs_to_its_query_and_its_filters(client: AsyncClient, conn: Connection) -> None:
    for number in range(3):
        await make_moment(conn, title=f"Coffee {number}", score=5)
    cursor = (await search_all(client, "coffee", limit=2, min_score=5))["next_cursor"]
    assert (await search_all(client, "coffee", limit=1, min_score=5, cursor=cursor))["moments"]
    others: list[dict[str, Any]] = [{"q": "tea", "min_score": 5}, {"q": "coffee"}, {"q": "coffee", "min_score": 4}]
    for other in others:
        answer = await client.get("/api/search", params={**other, "cursor": cursor})
        assert (answer.status_code, answer.json()["detail"]) == (
            422,
            "cursor: belongs to another list or to other filters",
        )


@pytest.mark.parametrize(
    "place",
    [
        *(None, 5, "x", [], [None, None], [[0.5, 1]], [[0.5, 1], None, None], [[0.5, 1], "x"], [[0.5], None]),
        *([[0.5, -1], None], [[0.5, 2**31], None], [[1e300, 1], None], [[-1.0, 1], None], [["0.5", 1], None]),
        *([[0.5, True], None], [[0.5, 1.5], None], [{"rank": 1}, None], [[None, None], None]),
    ],
    ids=str,
)
async def test_a_place_that_no_search_gave_is_422(client: AsyncClient, place: Any) -> None:
    cursor = encode_cursor(["search", "coffee", None, None, None], place)
    answer = await client.get("/api/search", params={"q": "coffee", "cursor": cursor})
    assert (answer.status_code, answer.json()) == (422, {"detail": "cursor: is not one that an answer gave"})


@pytest.mark.parametrize("cursor", ["x", "====", "W10", "bnVsbA", "ä", "\0", "%", "[" * 200, "Ww" * 100, "e30", "MQ"])
async def test_what_is_no_cursor_is_422(client: AsyncClient, cursor: str) -> None:
    answer = await client.get("/api/search", params={"q": "coffee", "cursor": cursor})
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
