"""The schema `search`: kept in step with the transcripts by PostgreSQL itself, and made again on demand."""

import json
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from app.database import Connection
from tests.migrations.rows import count_rows, delete, fetch, insert

_SEGMENTS = [
    {"text": "Good morning", "start": 0.5, "end": 1.5, "word_count": 2},
    {"text": "everybody", "start": 1.5, "end": 2, "word_count": 1},
]


async def write_transcript(conn: Connection, segments: Any = _SEGMENTS, text: str = "Good morning everybody") -> int:
    return await insert(conn, "transcripts", full_text=text, segment_timestamps=Jsonb(segments))


async def segments_of(conn: Connection, transcript: int) -> list[tuple[Any, ...]]:
    columns = "position, start_time, end_time, text"
    found = f"SELECT {columns} FROM search.segments WHERE transcript_id = %s ORDER BY position"
    return await fetch(conn, found, transcript)


async def everything(conn: Connection) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    return (
        await fetch(conn, "SELECT * FROM search.transcripts ORDER BY 1"),
        await fetch(conn, "SELECT * FROM search.segments ORDER BY 1, 2"),
    )


async def test_a_new_transcript_can_be_searched(conn: Connection) -> None:
    transcript = await write_transcript(conn)
    assert await segments_of(conn, transcript) == [(1, 0.5, 1.5, "Good morning"), (2, 1.5, 2.0, "everybody")]
    query = "document @@ to_tsquery('english', 'mornings')"
    assert await fetch(conn, f"SELECT position FROM search.segments WHERE {query}") == [(1,)]
    assert await fetch(conn, f"SELECT transcript_id FROM search.transcripts WHERE {query}") == [(transcript,)]


@pytest.mark.parametrize("table", ["transcripts", "videos"])
async def test_what_is_deleted_is_not_found_any_more(table: str, conn: Connection) -> None:
    transcript = await write_transcript(conn)
    ((video,),) = await fetch(conn, "SELECT video_id FROM transcripts")
    await delete(conn, table, video if table == "videos" else transcript)
    assert await everything(conn) == ([], [])


async def test_a_transcript_that_is_changed_after_all_is_searched_anew(conn: Connection) -> None:
    transcript = await write_transcript(conn)
    changed = Jsonb([{"text": "Bye", "start": 0, "end": 1}])
    await conn.execute("UPDATE transcripts SET full_text = 'Bye', segment_timestamps = %s", [changed])
    assert await segments_of(conn, transcript) == [(1, 0.0, 1.0, "Bye")]
    assert await fetch(conn, "SELECT document::text FROM search.transcripts") == [("'bye':1",)]


@pytest.mark.parametrize(
    "segment",
    [
        {"start": 0, "end": 1},
        {"text": None, "start": 0, "end": 1},
        {"text": 5, "start": 0, "end": 1},
        {"text": ["a"], "start": 0, "end": 1},
        {"text": "no times"},
        {"text": "times as text", "start": "0", "end": "1"},
        {"text": "no end", "start": 0, "end": None},
        {"text": "a list", "start": [0], "end": [1]},
        {"text": "too large", "start": 0, "end": 10**400},
        "text",
        None,
        5,
        [],
        {},
    ],
    ids=str,
)
async def test_a_malformed_segment_is_left_out_and_the_others_keep_their_place(segment: Any, conn: Connection) -> None:
    whole = {"text": "whole", "start": 0, "end": 1}
    transcript = await insert(conn, "transcripts")
    document = json.dumps([whole, segment, whole])
    await conn.execute("UPDATE transcripts SET segment_timestamps = %s::jsonb", [document])
    assert await segments_of(conn, transcript) == [(1, 0.0, 1.0, "whole"), (3, 0.0, 1.0, "whole")]


@pytest.mark.parametrize("segments", [[], {}, None, "text", 5, {"text": "alone", "start": "x"}], ids=str)
async def test_segments_that_are_no_list_do_no_harm(segments: Any, conn: Connection) -> None:
    transcript = await write_transcript(conn, segments)
    assert await segments_of(conn, transcript) == []
    assert await count_rows(conn, "search.transcripts") == 1


async def test_a_rebuild_makes_the_same_rows(conn: Connection) -> None:
    for text in ("one", "two", "three"):
        await write_transcript(conn, text=text)
    before = await everything(conn)
    assert await fetch(conn, "SELECT search.rebuild()") == [(3,)]
    assert await everything(conn) == before


async def test_a_rebuild_repairs_what_was_lost(conn: Connection) -> None:
    await write_transcript(conn)
    before = await everything(conn)
    await conn.execute("DELETE FROM search.segments")
    await conn.execute("UPDATE search.transcripts SET document = ''")
    await fetch(conn, "SELECT search.rebuild()")
    assert await everything(conn) == before


async def test_a_long_transcript_can_be_searched(conn: Connection) -> None:
    text = " ".join(f"word{number}" for number in range(50_000))
    await write_transcript(conn, text=text)
    query = "SELECT count(*) FROM search.transcripts WHERE document @@ 'word49999'"
    assert await fetch(conn, query) == [(1,)]
