"""Full-text search over all transcripts."""

from dataclasses import dataclass

from psycopg.rows import args_row

from app.database import Connection

# Marks around a found word: control characters, taken out of the text first, so that the rest can be escaped.
MARK_START = "\x02"
MARK_STOP = "\x03"
_MARKS = f"StartSel={MARK_START}, StopSel={MARK_STOP}"


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A transcript that matches; `segments`, where the words are said, is ready JSON in the order of the video."""

    video_identifier: str
    video_title: str | None
    rank: float
    snippet: str
    segments: str


class SearchRepository:
    """Search in what `search` keeps of each transcript."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def search_transcripts(self, query: str, limit: int, segments: int) -> list[SearchHit]:
        """Return the best `limit` transcripts, each with at most `segments` segments.

        `query` is what people type into a search box: words, "quoted phrases", `or`, `-without`. A hit's segments have
        `start_time` and `end_time` in seconds. Phrases cannot be told by the index, and reading a whole text again
        costs milliseconds: the index finds the words, and the stored document decides.
        """
        async with self._conn.cursor(row_factory=args_row(SearchHit)) as cursor:
            await cursor.execute(
                _SEARCH,
                {"query": query, "limit": limit, "segments": segments, "mark": MARK_START + MARK_STOP, "marks": _MARKS},
            )
            return await cursor.fetchall()

    async def rebuild(self) -> int:
        """Make what search needs again from the transcripts, however long it takes; return how many there are."""
        await self._conn.execute("SELECT set_config('statement_timeout', '0', true)")
        cursor = await self._conn.execute("SELECT search.rebuild()")
        (count,) = await anext(cursor)
        return int(count)


_SEARCH = """
    WITH queries AS MATERIALIZED (
        SELECT query,
               CASE WHEN query::text LIKE '%%!%%' THEN query
                    ELSE regexp_replace(query::text, '<(-|[0-9]+)>', '&', 'g')::tsquery END AS candidates,
               regexp_replace(querytree(query), '&|<(-|[0-9]+)>', '|', 'g')::tsquery AS any_word
        FROM websearch_to_tsquery('english', %(query)s) AS query
    ), found AS MATERIALIZED (
        SELECT id, video_id FROM transcripts
        WHERE to_tsvector('english', full_text) @@ (SELECT candidates FROM queries)
    ), hits AS MATERIALIZED (
        SELECT found.id, found.video_id, ts_rank(document, query) AS rank
        FROM queries CROSS JOIN found JOIN search.transcripts ON transcript_id = found.id
        WHERE candidates = query OR document @@ query
        ORDER BY rank DESC, found.id
        LIMIT %(limit)s
    ), said AS (
        SELECT transcript_id, position, text, start_time, end_time,
               row_number() OVER (
                   PARTITION BY transcript_id ORDER BY ts_rank(document, any_word) DESC, position
               ) AS place
        FROM queries CROSS JOIN search.segments
        WHERE document @@ any_word AND transcript_id = ANY ((SELECT array_agg(id) FROM hits)::integer[])
    ), jumps AS (
        SELECT transcript_id, (array_agg(text ORDER BY place))[1] AS best,
               json_agg(
                   json_build_object('start_time', start_time, 'end_time', end_time) ORDER BY position
               )::text AS times
        FROM said WHERE place <= %(segments)s GROUP BY transcript_id
    )
    SELECT videos.identifier, videos.title, hits.rank,
           CASE WHEN best IS NULL
                THEN (SELECT ts_headline('english', translate(full_text, %(mark)s, ''), query, %(marks)s)
                      FROM transcripts WHERE id = hits.id)
                ELSE ts_headline('english', translate(best, %(mark)s, ''), any_word, %(marks)s) END,
           coalesce(times, '[]')
    FROM queries CROSS JOIN hits
    JOIN videos ON videos.id = hits.video_id
    LEFT JOIN jumps ON transcript_id = hits.id
    ORDER BY hits.rank DESC, hits.id
    """
