"""What is stored is indexed soon after: by a worker, by a search where it is little, by a command for all of it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from app.core.config import Settings
from app.database import Connection, Database, open_async_connection
from app.repositories import search_index as repository
from app.search.documents import make_document
from app.search.timed_words import TimedWord
from app.services import search_index
from app.services.search_index import IndexedCount, index_if_little, index_next, index_waiting, rebuild
from tests.factories import make_moment, make_transcript, make_video
from tests.migrations.rows import fetch
from tests.services.searching import make_database

_WAITING = """
    SELECT (SELECT count(*) FROM search.transcripts WHERE index_version < 1),
           (SELECT count(*) FROM search.titles WHERE index_version < 1)
"""


async def list_waiting(conn: Connection) -> tuple[int, int]:
    ((transcripts, titles),) = await fetch(conn, _WAITING)
    return transcripts, titles


async def list_passages(conn: Connection) -> list[tuple[Any, ...]]:
    return await fetch(
        conn, "SELECT position, text, word_starts, word_ends, document::text FROM search.passages ORDER BY id"
    )


async def test_a_transcript_is_stored_as_passages_with_the_times_of_words(conn: Connection) -> None:
    await make_transcript(conn)
    await index_if_little(conn)
    assert await list_passages(conn) == [(1, "Hello there.", [0, 400], [400, 900], "'hello':1 'there':2")]
    assert await list_waiting(conn) == (0, 0)


async def test_a_transcript_that_is_changed_has_its_new_passages_only(conn: Connection) -> None:
    await make_transcript(conn, full_text="Hello there. " * 500)
    await index_if_little(conn)
    await conn.execute("UPDATE transcripts SET full_text = 'Bye', word_timestamps = '[]'")
    await index_if_little(conn)
    assert await list_passages(conn) == [(1, "Bye", None, None, "'bye':1")]


@pytest.mark.parametrize("text", ["", " ", "\u2014 ..."])
async def test_a_transcript_without_words_is_indexed_too(text: str, conn: Connection) -> None:
    await make_transcript(conn, full_text=text, word_timestamps=[], segment_timestamps=[])
    await index_if_little(conn)
    assert await list_waiting(conn) == (0, 0)


async def test_titles_are_stemmed_by_the_language_of_a_transcript_that_follows(conn: Connection) -> None:
    video = await make_video(conn, title="H\u00e4user")
    await make_moment(conn, video_id=video.id, title="H\u00e4user")
    await index_if_little(conn)
    with_stem = "SELECT count(*) FROM search.titles WHERE document::text LIKE '%~haus%'"
    assert await fetch(conn, with_stem) == [(0,)]
    await make_transcript(conn, video_id=video.id, language="de")
    await index_if_little(conn)
    assert await fetch(conn, with_stem) == [(2,)]


@pytest.mark.parametrize(
    "timestamps", ["{}", "null", '"text"', "5", '[null, 5, {"word": 5}]', '[{"word":"a","start":1e400,"end":1e400}]']
)
async def test_malformed_timestamps_do_no_harm(timestamps: str, conn: Connection) -> None:
    await make_transcript(conn)
    await conn.execute(
        "UPDATE transcripts SET word_timestamps = %s::jsonb, segment_timestamps = %s::jsonb", [timestamps] * 2
    )
    await index_if_little(conn)
    assert await list_passages(conn) == [(1, "Hello there.", None, None, "'hello':1 'there':2")]


async def test_what_is_much_waits_for_a_worker(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "_MOST_BYTES_INDEXED_BY_SEARCH", 1000)
    await make_transcript(conn, full_text=" ".join(f"word{number}" for number in range(1000)))
    await index_if_little(conn)
    assert await list_waiting(conn) == (1, 1)


async def test_a_search_goes_on_where_indexing_fails(
    conn: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(conn: Connection) -> IndexedCount:
        await conn.execute("SELECT 1 / 0")
        raise AssertionError

    await make_transcript(conn)
    with monkeypatch.context() as patch:
        patch.setattr(search_index, "index_next", fail)
        await index_if_little(conn)
    assert caplog.messages == ["Searching without what waits to be indexed: division by zero"]
    assert await list_waiting(conn) == (1, 1)


async def test_a_transcript_that_postgresql_refuses_keeps_no_other_waiting(
    conn: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        search_index,
        "make_document",
        lambda words, stems: "a" * 3000 if "Bad" in words else make_document(words, stems),
    )
    bad = await make_transcript(conn, full_text="Bad")
    await make_transcript(conn, full_text="Good")
    await index_if_little(conn)
    assert [text for _, text, *_ in await list_passages(conn)] == ["Good"]
    assert await list_waiting(conn) == (0, 0)
    assert caplog.messages == [f"Transcript {bad.id} cannot be searched"]


async def test_what_is_being_deleted_is_not_indexed(own_database_url: str) -> None:
    """Locks in another order than those of a deletion would end in a deadlock."""
    settings = Settings(database_url=own_database_url)
    async with open_async_connection(settings) as conn, open_async_connection(settings) as other:
        transcript = await make_transcript(conn)
        async with other.transaction():
            await other.execute("SELECT FROM transcripts WHERE id = %s FOR UPDATE", [transcript.id])
            async with asyncio.timeout(5):
                assert await index_next(conn) == IndexedCount(0, 1)
            await other.execute("DELETE FROM transcripts WHERE id = %s", [transcript.id])
        assert await index_next(conn) == IndexedCount(0, 0)


async def test_nothing_is_indexed_where_the_database_is_read_only(conn: Connection) -> None:
    await make_transcript(conn)
    await conn.execute("SET TRANSACTION READ ONLY")
    await index_if_little(conn)
    assert await list_waiting(conn) == (1, 1)


async def test_words_are_counted_again_once_their_number_has_grown_by_a_tenth(conn: Connection) -> None:
    for number in range(20):
        await make_transcript(conn, full_text=f"Coffee number{number}")
    await rebuild(conn, lambda done, total: None)
    assert await fetch(conn, "SELECT documents FROM search.words WHERE word = 'coffee'") == [(20,)]
    await make_transcript(conn, full_text="Coffee again")
    await index_if_little(conn)
    assert await fetch(conn, "SELECT documents FROM search.words WHERE word = 'coffee'") == [(20,)]
    await conn.execute("DELETE FROM transcripts WHERE full_text LIKE '%1'")
    for _ in range(5):
        await make_transcript(conn, full_text="Tea")
    await index_if_little(conn)
    assert await fetch(
        conn, "SELECT word, documents FROM search.words WHERE word IN ('coffee', 'number1') ORDER BY 1"
    ) == [("coffee", 19)]


async def test_words_are_counted_after_a_growth_also_where_searches_have_indexed_everything(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "_QUICKLY_COUNTED_DOCUMENTS", 0)
    await make_transcript(conn, full_text="Coffee")
    await index_if_little(conn)
    counted = "SELECT documents FROM search.words WHERE word = 'coffee'"
    assert await fetch(conn, counted) == []
    await index_waiting(make_database(conn))
    assert await fetch(conn, counted) == [(1,)]


async def test_workers_index_each_transcript_once(own_database_url: str) -> None:
    settings = Settings(database_url=own_database_url)

    async def open_connection() -> AsyncGenerator[Connection, None]:
        async with open_async_connection(settings) as conn:
            yield conn

    async with open_async_connection(settings) as conn:
        for number in range(30):
            video = await make_video(conn, identifier=f"video-{number}")
            await make_transcript(conn, video_id=video.id, full_text=f"Coffee number{number}")
            await make_moment(conn, video_id=video.id)
        await asyncio.gather(*(index_waiting(Database(open_connection)) for _ in range(4)))
        assert await list_waiting(conn) == (0, 0)
        assert await fetch(conn, "SELECT count(*), count(DISTINCT transcript_id) FROM search.passages") == [(30, 30)]
        ((coffee,),) = await fetch(conn, "SELECT documents FROM search.words WHERE word = 'coffee'")
        assert 22 <= coffee <= 30  # of 90 documents a tenth may be newer than the count


async def test_a_rebuild_makes_everything_again_and_tells_its_progress(conn: Connection) -> None:
    for number in range(3):
        await make_transcript(conn, full_text=f"Coffee number{number}")
    await index_if_little(conn)
    before = await list_passages(conn)
    await conn.execute("UPDATE search.passages SET document = '', text = ''")
    await conn.execute("DELETE FROM search.words")
    reports: list[tuple[int, int]] = []
    assert await rebuild(conn, lambda done, total: reports.append((done, total))) == 3
    assert await list_passages(conn) == before
    assert reports[0] == (0, 3)
    assert reports[-1] == (3, 3)
    assert await fetch(conn, "SELECT documents FROM search.words WHERE word = 'coffee'") == [(3,)]


async def test_a_rebuild_makes_everything_again_also_where_something_waits(conn: Connection) -> None:
    await make_transcript(conn, full_text="Coffee")
    await index_if_little(conn)
    before = await list_passages(conn)
    await conn.execute("UPDATE search.passages SET document = ''")
    await make_moment(conn, title="Waiting")
    await rebuild(conn, lambda done, total: None)
    assert await list_passages(conn) == before
    assert await list_waiting(conn) == (0, 0)


async def test_a_rebuild_that_was_interrupted_goes_on_where_it_stopped(conn: Connection) -> None:
    for number in range(5):
        await make_transcript(conn, full_text=f"Coffee number{number}")
    await rebuild(conn, lambda done, total: None)
    reports: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        reports.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await rebuild(conn, report)
    assert (await list_waiting(conn))[0] == 3
    await rebuild(conn, lambda done, total: reports.append((done, total)))
    assert reports == [(0, 5), (1, 5), (2, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


async def test_a_new_version_of_the_index_is_made_by_itself_and_the_old_one_serves_until_then(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_transcript(conn)
    await index_if_little(conn)
    before = await list_passages(conn)
    monkeypatch.setattr(repository, "INDEX_VERSION", 2)
    assert await list_passages(conn) == before
    await index_if_little(conn)
    assert await fetch(conn, "SELECT index_version FROM search.transcripts") == [(2,)]
    assert await list_passages(conn) == before


async def test_a_transcript_that_cannot_be_indexed_is_logged_and_keeps_no_other_waiting(
    conn: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(full_text: str, *others: object) -> list[TimedWord]:
        if full_text == "Broken":
            raise ValueError("No")
        return [TimedWord(full_text)]

    monkeypatch.setattr(search_index, "list_timed_words", fail)
    broken = await make_transcript(conn, full_text="Broken")
    await make_transcript(conn, full_text="Whole")
    await index_if_little(conn)
    assert [text for _, text, *_ in await list_passages(conn)] == ["Whole"]
    assert caplog.messages == [f"Transcript {broken.id} cannot be searched"]
