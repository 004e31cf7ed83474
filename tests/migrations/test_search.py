"""The schema `search`: PostgreSQL itself marks what is new or changed, to be indexed."""

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from app.database import Connection
from tests.migrations.rows import count_rows, delete, fetch, insert

_WAITING = {
    "transcripts": "SELECT transcript_id FROM search.transcripts WHERE index_version = 0",
    "videos": "SELECT video_id FROM search.titles WHERE index_version = 0 AND video_id IS NOT NULL",
    "moments": "SELECT moment_id FROM search.titles WHERE index_version = 0 AND moment_id IS NOT NULL",
}


async def mark_indexed(conn: Connection) -> None:
    await conn.execute("UPDATE search.transcripts SET index_version = 1")
    await conn.execute("UPDATE search.titles SET index_version = 1, document = 'found'")


@pytest.mark.parametrize("table", ["transcripts", "videos", "moments"])
async def test_a_new_row_waits_to_be_indexed(table: str, conn: Connection) -> None:
    row = await insert(conn, table)
    assert (row,) in await fetch(conn, _WAITING[table])


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("transcripts", "full_text = 'Bye'"),
        ("transcripts", "word_timestamps = '[]'"),
        ("transcripts", "segment_timestamps = '[]'"),
        ("transcripts", "language = 'de'"),
        ("videos", "title = 'Bye'"),
        ("videos", "identifier = 'bye'"),
        ("moments", "title = 'Bye'"),
    ],
)
async def test_a_row_that_is_changed_waits_again_and_is_found_as_it_was_until_then(
    table: str, change: str, conn: Connection
) -> None:
    row = await insert(conn, table)
    await mark_indexed(conn)
    assert await fetch(conn, _WAITING[table]) == []
    await conn.execute(f"UPDATE {table} SET {change} WHERE id = {row}".encode())
    assert await fetch(conn, _WAITING[table]) == [(row,)]
    assert {document for (document,) in await fetch(conn, "SELECT document::text FROM search.titles")} == {"'found'"}


@pytest.mark.parametrize(
    ("table", "change"),
    [("videos", "duration_seconds = 5"), ("moments", "score = 5"), ("transcripts", "number_of_words = 5")],
)
async def test_a_change_of_something_else_makes_nothing_wait(table: str, change: str, conn: Connection) -> None:
    row = await insert(conn, table)
    await mark_indexed(conn)
    await conn.execute(f"UPDATE {table} SET {change} WHERE id = {row}".encode())
    assert await fetch(conn, _WAITING[table]) == []


async def test_word_timestamps_are_served_as_they_are_stored(conn: Connection) -> None:
    words = Jsonb([{"word": "Bye", "start": 0, "end": 1}])
    await insert(conn, "transcripts")
    await conn.execute("UPDATE transcripts SET word_timestamps = %s", [words])
    assert await fetch(conn, "SELECT word_timestamps::jsonb FROM search.transcripts") == [(words.obj,)]


@pytest.mark.parametrize("table", ["transcripts", "videos"])
async def test_what_is_deleted_is_not_found_any_more(table: str, conn: Connection) -> None:
    transcript = await insert(conn, "transcripts")
    ((video,),) = await fetch(conn, "SELECT video_id FROM transcripts")
    await conn.execute(
        "INSERT INTO search.passages (transcript_id, position, text, document) VALUES (%s, 1, 'a', 'a')", [transcript]
    )
    await delete(conn, table, video if table == "videos" else transcript)
    assert await count_rows(conn, "search.transcripts") == await count_rows(conn, "search.passages") == 0
    titles: list[tuple[Any, ...]] = await fetch(conn, "SELECT video_id FROM search.titles")
    assert titles == ([] if table == "videos" else [(video,)])
