"""Searching in the words that people remember: as written, in other forms, and in ten languages."""

import pytest
from httpx import AsyncClient

from app.database import Connection
from app.services.search_index import rebuild
from tests.api.test_search import list_moments, make_talk, search
from tests.factories import make_moment, make_transcript, make_video


@pytest.mark.parametrize(
    ("language", "said", "queries"),
    [
        ("en", "She grows tomatoes in Zürich.", ["tomatoes", "tomato", "tomat", "grow", "zurich", "ZÜRICH"]),
        ("de", "Die Häuser sind schön.", ["Haus", "häuser", "hauser", "Häusern", "schön", "schon"]),
        ("fr", "Les étés ont été chauds à l’école.", ["été", "ete", "ecole", "chaud", "l'école"]),
        ("es", "Los niños cantaban canciones.", ["niño", "nino", "canción", "cantar"]),
        ("ru", "Ёлки стоят возле дороги.", ["ёлка", "елка", "дорога"]),
        ("tr", "İstanbul'da kitaplar ucuz.", ["istanbul", "kitap"]),
        ("ar", "قرأتُ كتاباً جميلاً", ["كتابا", "قرات"]),
        ("hi", "मुझे किताबें पसंद हैं", ["किताबें", "पसंद"]),
        ("ja", "今日はいい天気です。", ["天気", "今日", "いい天気", '"いい天気"', "天"]),
        ("zh", "我们明天去北京旅游", ["北京", "明天", '"去北京"', "旅"]),
        ("th", "วันนี้อากาศดีมาก", ["อากาศ", "วันนี้"]),
        ("ko", "오늘 날씨가 좋네요", ["날씨", "오늘"]),
    ],
)  # fmt: skip
async def test_what_is_said_in_a_language_is_found(
    client: AsyncClient, conn: Connection, language: str, said: str, queries: list[str]
) -> None:
    await make_talk(conn, "1", "Nothing of it here.", language="en")
    await make_talk(conn, "2", said, language=language)
    for query in queries:
        assert [hit["video_id"] for hit in await search(client, query)] == ["2"], query


async def test_marks_are_around_what_was_found_in_a_script_without_spaces(
    client: AsyncClient, conn: Connection
) -> None:
    await make_talk(conn, "2", "今日はいい天気です。明日も晴れます。", language="ja")
    (hit,) = await search(client, "天気")
    assert hit["snippet"] == "今日はいい<mark>天気</mark>です。"
    (hit,) = await search(client, '"いい天気"')
    assert hit["snippet"] == "今日は<mark>いい天気</mark>です。"


@pytest.mark.parametrize(
    ("title", "queries"),
    [
        ("AT&T don't answer", ["AT&T", "don't", "don’t", "dont", "at&t answers"]),
        ("Programming in C++ and C#", ["C++", "c#"]),
        ("See https://example.com/a?b=c", ["https://example.com/a?b=c", "example"]),
        ("The U.S. economy", ["U.S.", "us", "economies"]),
        ("naïve Straße", ["naive", "STRASSE", "straße"]),
    ],
)
async def test_names_and_signs_in_titles_are_found_as_they_are_written(
    client: AsyncClient, conn: Connection, title: str, queries: list[str]
) -> None:
    await make_moment(conn, title="Something else")
    video = await make_video(conn, title=title)
    await make_moment(conn, title=title)
    for query in queries:
        assert await list_moments(client, query) == [title], query
        assert [hit["video_id"] for hit in await search(client, query)] == [video.identifier], query


async def test_a_video_is_found_by_its_title_and_by_the_name_that_is_shown_without_one(
    client: AsyncClient, conn: Connection
) -> None:
    await make_video(conn, identifier="how-to-bake-bread")
    await make_video(conn, identifier="2", title="Mars & <i>Venus</i>")
    (bread,) = await search(client, "baking")
    assert (bread["video_title"], bread["snippet"], bread["segments"]) == (
        "How To Bake Bread",
        "How To <mark>Bake</mark> Bread",
        [],
    )
    (mars,) = await search(client, "venus")
    assert mars["snippet"] == "Mars &amp; &lt;i&gt;<mark>Venus</mark>&lt;/i&gt;"


async def test_a_title_that_is_changed_is_found_by_its_new_words(client: AsyncClient, conn: Connection) -> None:
    moment = await make_moment(conn, title="Coffee")
    assert await list_moments(client, "coffee") == ["Coffee"]
    await conn.execute("UPDATE moments SET title = 'Tea' WHERE id = %s", [moment.id])
    assert (await list_moments(client, "coffee"), await list_moments(client, "tea")) == ([], ["Tea"])


async def test_a_phrase_is_found_across_segments_with_its_stop_words_at_the_time_of_its_first_word(
    client: AsyncClient, conn: Connection
) -> None:
    text = "You should record yourself. At the end of the day, it is the end of the road. " * 40
    words = [{"word": word, "start": at * 0.5, "end": at * 0.5 + 0.4} for at, word in enumerate(text.split())]
    segments = [{"text": text[:20], "start": 0, "end": 2}, {"text": text[20:], "start": 2, "end": 400}]
    video = await make_video(conn, identifier="talk")
    await make_transcript(conn, video_id=video.id, full_text=text, word_timestamps=words, segment_timestamps=segments)
    (hit,) = await search(client, '"at the end of the day"')
    assert [segment["start_time"] for segment in hit["segments"]] == [2.0 + 8.5 * at for at in range(40)]
    assert hit["segments"][0]["end_time"] == 4.9
    assert hit["snippet"].startswith("<mark>At</mark> <mark>the</mark> <mark>end</mark>")
    (hit,) = await search(client, '"record yourself at"')
    assert len(hit["segments"]) == 40
    assert await search(client, '"the day at"') == []


async def test_a_phrase_far_into_a_long_transcript_is_found(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn)
    words = [{"word": f"w{at}", "start": float(at), "end": at + 0.5} for at in range(30_000)]
    text = " ".join(f"w{at}" for at in range(30_000))
    await make_transcript(conn, video_id=video.id, full_text=text, word_timestamps=words, segment_timestamps=[])
    await rebuild(conn, lambda done, total: None)
    for first in (0, 16_380, 29_990):
        (hit,) = await search(client, '"' + " ".join(f"w{first + more}" for more in range(8)) + '"')
        assert hit["segments"] == [{"start_time": float(first), "end_time": first + 7.5}]


async def test_a_phrase_that_is_longer_than_what_passages_share_is_found(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn)
    text = " ".join(f"w{at}" for at in range(1000))
    await make_transcript(conn, video_id=video.id, full_text=text)
    for first in range(0, 900, 50):
        (hit,) = await search(client, '"' + " ".join(f"w{first + more}" for more in range(60)) + '"')
        assert hit["snippet"].startswith(f"<mark>w{first}</mark>") or f" <mark>w{first}</mark>" in hit["snippet"]


async def test_the_last_word_may_go_on_in_a_search_as_you_type(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn, "1", "Ripe tomatoes.")
    await make_talk(conn, "2", "Ripe apples.")
    hits = await search(client, "ripe toma", as_you_type=True)
    assert [hit["video_id"] for hit in hits] == ["1", "2"]
    assert hits[0]["snippet"] == "<mark>Ripe</mark> <mark>tomatoes</mark>."


async def test_occurrences_of_passages_that_overlap_are_listed_once(client: AsyncClient, conn: Connection) -> None:
    text = " ".join("coffee" if at % 97 == 0 else f"w{at}." for at in range(1000))
    words = [{"word": word, "start": float(at), "end": at + 0.5} for at, word in enumerate(text.split())]
    video = await make_video(conn)
    await make_transcript(conn, video_id=video.id, full_text=text, word_timestamps=words)
    (hit,) = await search(client, "coffee")
    starts = [segment["start_time"] for segment in hit["segments"]]
    assert starts == sorted(set(starts))
    assert set(starts) <= {float(at) for at in range(0, 1000, 97)}
    assert len(starts) == 10
