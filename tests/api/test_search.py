"""`GET /api/search`."""

from typing import Any

import pytest
from httpx import AsyncClient

from app.database import Connection
from app.repositories import search as repository
from app.repositories import search_conditions
from app.repositories.search_vectors import SearchVectorRepository
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
    both, one = await search(client, "coffee tea")
    assert (both["video_id"], one["video_id"]) == ("both", "one")
    assert both["segments"] == [{"start_time": 0.0, "end_time": 19.0}]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('"machine learning"', ["phrase"]),
        ("machine learning", ["apart", "machine", "phrase"]),
        ("+machine +learning", ["apart", "phrase"]),
        ("machine +learned", ["apart", "phrase"]),
        ("machine -learning", ["machine"]),
        ("machines -learned", ["machine"]),
        ('machine -"machine learning"', ["apart", "machine"]),
        ("learning or coffee", ["apart", "coffee", "phrase"]),
        ('"machine learning" or coffee', ["coffee", "phrase"]),
        ('"machine learning" or "about the"', ["apart", "phrase"]),
        ('"the machine" learning', ["apart", "phrase"]),
        ('"machines"', []),
        ("-machine", []),
        ("the of and", ["apart", "phrase"]),
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


async def test_a_search_takes_eight_statements_however_much_it_finds(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    for number in range(5):
        video_id = await make_talk(conn, f"talk-{number}", "Coffee.")
        await make_moment(conn, video_id=video_id, title="Coffee")
    await search(client, "coffee")
    with statements:
        found = await search_all(client, "coffee or beans")
        assert (len(found["hits"]), len(found["moments"])) == (5, 5)
    assert statements == 8


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
        "clip": {"video_id": "demo-talk", "start_time": 1.5, "end_time": 9.0},
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('"machine learning"', ["The machine learning"]),
        ("machine learning", ["Learning by machine", "Machine", "The machine learning"]),
        ("machine -learning", ["Machine"]),
        ("coffee or machine -learning", ["Coffee", "Machine"]),
        ("the", ["The machine learning"]),
    ],
)
async def test_titles_are_searched_as_transcripts_are(
    client: AsyncClient, conn: Connection, query: str, found: list[str]
) -> None:
    for title in ("The machine learning", "Learning by machine", "Machine", "Coffee"):
        await make_moment(conn, title=title)
    assert sorted(await list_moments(client, query)) == found


async def test_a_word_that_is_misspelt_is_corrected_where_nothing_is_found(
    client: AsyncClient, conn: Connection
) -> None:
    for number in range(3):
        await make_talk(conn, f"talk-{number}", "Machine learning.", "Asparagus.", "Go and do.")
    found = await search_all(client, '"Machne learning" +asparragus!', limit=2)
    assert found["did_you_mean"] == '"machine learning" +asparagus!'
    assert len(found["hits"]) == 2
    assert found["hits"][0]["snippet"] == "<mark>Machine</mark> <mark>learning</mark>."
    rest = await search_all(client, '"Machne learning" +asparragus!', limit=2, cursor=found["next_cursor"])
    assert rest["did_you_mean"] == found["did_you_mean"]
    assert [hit["snippet"] for hit in rest["hits"]] == ["<mark>Machine</mark> <mark>learning</mark>."]
    assert (await search_all(client, "machne learning"))["did_you_mean"] is None
    for unlike in ("xyzzyx", "machinations", "aspa", "good", "dog"):
        assert (await search_all(client, f'"{unlike}"'))["did_you_mean"] is None
    await conn.execute("DROP EXTENSION pg_trgm CASCADE")
    assert (await search_all(client, '"machne learning"'))["hits"] == []


async def test_spelling_is_not_corrected_where_pg_trgm_is_in_another_schema(
    client: AsyncClient, conn: Connection
) -> None:
    await make_talk(conn, "talk", "Machine learning.")
    await conn.execute("DROP EXTENSION pg_trgm CASCADE")
    await conn.execute("CREATE SCHEMA extensions")
    await conn.execute("CREATE EXTENSION pg_trgm SCHEMA extensions")
    assert await SearchVectorRepository(conn).enable_extensions() == [
        'operator class "gin_trgm_ops" does not exist for access method "gin"'
    ]
    assert await search(client, '"machne learning"') == []


async def test_an_excluded_word_that_is_not_said_is_no_beginning_of_others(
    client: AsyncClient, conn: Connection
) -> None:
    await make_talk(conn, "team", "Coffee for the team.")
    await make_talk(conn, "tea", "Coffee for tea lovers.")
    assert [hit["video_id"] for hit in await search(client, "coffee -tea")] == ["team"]
    assert len(await search(client, "coffee -teas -lov")) == 1


async def test_a_word_beside_a_phrase_has_its_times_too(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn, "coffee", "It is cold.", "Hot coffee.")
    await make_talk(conn, "tea", "It is hot.", "Tea is fine.")
    found = {hit["video_id"]: hit for hit in await search(client, '"hot coffee" or tea')}
    assert found["coffee"]["segments"] == [{"start_time": 10.0, "end_time": 19.0}]
    assert found["tea"]["clip"]["start_time"] == 10.0
    assert found["tea"]["snippet"] == "<mark>Tea</mark> is fine."


async def test_a_frequent_word_is_found_in_many_videos(
    client: AsyncClient, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_RANKED_PASSAGES", repository._RANKED_PASSAGES.replace("LIMIT 1000", "LIMIT 3"))
    for number in range(3):
        await make_talk(conn, f"talk-{number}", *["Coffee is what we talk about, and nothing else today."] * 100)
    assert len(await search(client, "coffee")) == 3


async def test_conditions_hold_before_documents_are_limited(
    client: AsyncClient, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_conditions, "_MAX_MATCHES", 1)
    for number, name in enumerate(("first", "last")):
        video_id = await make_talk(conn, name, f"Coffee {name}.")
        await make_moment(conn, video_id=video_id, title=f"Coffee {name}", score=number)
    for query in ("coffee -first", "coffee +last", 'coffee "last"'):
        found = await search_all(client, query)
        assert [hit["video_id"] for hit in found["hits"]] == ["last"], query
        assert [moment["title"] for moment in found["moments"]] == ["Coffee last"], query
    assert [hit["video_id"] for hit in await search(client, "coffee", video="last")] == ["last"]
    assert await list_moments(client, "coffee", video="last") == ["Coffee last"]
    assert await list_moments(client, "coffee", min_score=1) == ["Coffee last"]


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
        "facets": None,
        "did_you_mean": None,
        "semantic": False,
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


async def test_videos_are_filtered_by_day_length_model_and_speaker(client: AsyncClient, conn: Connection) -> None:
    old = await make_talk(conn, "old", "Coffee.")
    await make_talk(conn, "new", "Coffee.")
    await conn.execute(
        "UPDATE videos SET created_at = '2026-01-31 23:59:59', duration_seconds = 100 WHERE id = %s", [old]
    )
    await make_moment(conn, video_id=old, title="Coffee break", generation_model="qwen3")
    segments = '[{"text": "Coffee.", "start": 0, "end": 9, "speaker": "Ann"}]'
    await conn.execute("UPDATE transcripts SET segment_timestamps = %s::jsonb WHERE video_id = %s", [segments, old])
    for name, value in [
        *(("before", "2026-02-01"), ("max_duration", 100), ("model", "qwen3"), ("speaker", "Ann")),
    ]:
        assert [hit["video_id"] for hit in await search(client, "coffee", **{name: value})] == ["old"], name
    for name, value in (("after", "2026-02-01"), ("min_duration", 100.5)):
        assert [hit["video_id"] for hit in await search(client, "coffee", **{name: value})] == ["new"], name
        assert await list_moments(client, "coffee", **{name: value}) == []
    assert await list_moments(client, "coffee", model="qwen3") == ["Coffee break"]
    assert await list_moments(client, "coffee", model="other") == []
    assert await list_moments(client, "coffee", speaker="Ann") == []


async def test_facets_count_the_videos_of_all_pages(client: AsyncClient, conn: Connection) -> None:
    for number in range(3):
        video_id = await make_talk(conn, f"talk-{number}", "Coffee.", language="de" if number else "en")
        await make_moment(conn, video_id=video_id, title="Other", score=8, generation_model="qwen3")
    await make_talk(conn, "tea", "Tea.")
    await conn.execute("UPDATE videos SET created_at = '2026-02-08'")
    found = await search_all(client, "coffee", facets=True, limit=1)
    assert [tuple(facet.values()) for facet in found["facets"]] == [
        ("duration", "4 to 20 minutes", 3),
        ("language", "de", 2),
        ("language", "en", 1),
        ("model", "qwen3", 3),
        ("score", "8", 3),
        ("year", "2026", 3),
    ]
    rest = await search_all(client, "coffee", facets=True, limit=1, cursor=found["next_cursor"])
    assert rest["facets"] is None


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


async def test_a_later_page_ranks_nothing_anew(client: AsyncClient, conn: Connection, statements: Statements) -> None:
    for number in range(3):
        await make_moment(conn, title=f"Coffee {number}")
    first = await search_all(client, "coffee", limit=2)
    with statements:
        await search_all(client, "coffee", limit=2, cursor=first["next_cursor"])
    assert statements == 3


async def test_no_hit_is_skipped_or_repeated_while_rows_change(client: AsyncClient, conn: Connection) -> None:
    for number in range(6):
        await make_talk(conn, f"talk-{number}", *["Coffee."] * (number + 1))
    page = await search_all(client, "coffee", limit=2)
    found = [hit["video_id"] for hit in page["hits"]]
    await make_talk(conn, "newest", "Coffee coffee coffee coffee.", "Coffee coffee coffee.", *["Coffee."] * 20)
    await conn.execute("DELETE FROM videos WHERE identifier = %s", [found[0]])
    while page["next_cursor"]:
        page = await search_all(client, "coffee", limit=2, cursor=page["next_cursor"])
        found += [hit["video_id"] for hit in page["hits"]]
    assert found == [f"talk-{number}" for number in (5, 4, 3, 2, 1, 0)]


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
        *(
            None,
            5,
            "x",
            [],
            [None, None, None],
            [1, "", "", None],
            [0, "AQAAAA==", "", None],
            [1, "AQAAAA==", "", 5],
            [1, "AQAAAA==", "", "\n"],
        ),
        *(
            [1, "AQAAAA", "", None],
            [1, "AQAA", "", None],
            [1, "!", "", None],
            [1, "AAAAAA==", "", None],
            [1, "////fw==", "/////w==", None],
        ),
        *(
            [1.5, "AQAAAA==", "", None],
            [2**31, "AQAAAA==", "", None],
            [1, ["AQAAAA=="], "", None],
            [1, "AQAAAA==" * 500, "", None],
        ),
    ],
    ids=str,
)
async def test_a_place_that_no_search_gave_is_422(client: AsyncClient, place: Any) -> None:
    cursor = encode_cursor(["search", "coffee", "hybrid", False, *[None] * 9], place)
    answer = await client.get("/api/search", params={"q": "coffee", "cursor": cursor})
    assert (answer.status_code, answer.json()) == (422, {"detail": "cursor: is not one that an answer gave"})


@pytest.mark.parametrize("cursor", ["x", "====", "W10", "bnVsbA", "ä", "\0", "%", "[" * 200, "Ww" * 100, "e30", "MQ"])
async def test_what_is_no_cursor_is_422(client: AsyncClient, cursor: str) -> None:
    answer = await client.get("/api/search", params={"q": "coffee", "cursor": cursor})
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
