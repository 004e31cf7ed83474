"""Full-text search over all transcripts and over the titles of moments."""

import re
from dataclasses import asdict, dataclass
from typing import LiteralString

from psycopg import sql

from app.database.queries import Repository, fetch_all, fetch_value, make_and_conditions

# Marks around a found word: control characters that are removed from the text first, so that the rest can be escaped.
MARK_START = "\x02"
MARK_STOP = "\x03"
_MARKS = f"StartSel={MARK_START}, StopSel={MARK_STOP}"
_MARKS_IN_ALL = _MARKS + ", HighlightAll=true"

# Dashes that are no exclusion: rules, table borders, `a - b`. `websearch_to_tsquery` reads each one outside a word as a
# negation, and fails with an internal error at more than 32 negations of one word.
_NON_EXCLUDING_DASHES = re.compile(r"(?<!\w)(?:-{2,}|-(?![\w\"]))")


@dataclass(frozen=True, slots=True)
class SearchFilters:
    """Filters of a search: one video, one language, moments with at least this score."""

    video: str | None = None
    language: str | None = None
    min_score: int | None = None


@dataclass(frozen=True, slots=True)
class SearchCursor:
    """Rank and id of the last hit of a page; the next page begins after it."""

    rank: float
    id: int


FIRST_PAGE = SearchCursor(float("inf"), 0)


@dataclass(frozen=True, slots=True)
class TranscriptHit:
    """A matching transcript; `segments` is JSON text with the times of the matching segments, in order."""

    id: int
    video_identifier: str
    video_title: str | None
    rank: float
    snippet: str
    segments: str


@dataclass(frozen=True, slots=True)
class MomentHit:
    """A moment whose title matches; times in seconds."""

    id: int
    video_identifier: str
    video_title: str | None
    identifier: str
    title: str
    start_time: float
    end_time: float
    score: int | None
    rank: float
    snippet: str


class SearchRepository(Repository):
    """Full-text search over transcripts, by the documents in the schema `search`, and over titles of moments.

    `query` is web search syntax: words, "quoted phrases", `or`, `-without`. Any text is valid.
    """

    async def search_transcripts(
        self, query: str, filters: SearchFilters, limit: int, max_segments: int, after: SearchCursor = FIRST_PAGE
    ) -> list[TranscriptHit]:
        """Return the best `limit` transcripts after `after`, each with at most `max_segments` segments.

        The index cannot match phrases, and parsing a text again costs milliseconds: the index finds the words, and the
        stored document is matched against the phrase. `min_score` is met by any moment of the video.
        """
        spoken = make_and_conditions({"language = %(language)s": filters.language})
        of_video = make_and_conditions({_OF_VIDEO + "found.video_id)": filters.video, _SCORED: filters.min_score})
        parameters = {
            **_make_search_query_parameters(query, filters, limit, after),
            "marks": _MARKS,
            "segments": max_segments,
        }
        return await fetch_all(self._conn, TranscriptHit, sql.SQL(_TRANSCRIPTS).format(spoken, of_video), parameters)

    async def search_moments(
        self, query: str, filters: SearchFilters, limit: int, after: SearchCursor = FIRST_PAGE
    ) -> list[MomentHit]:
        chosen = make_and_conditions(
            {
                _OF_VIDEO + "moments.video_id)": filters.video,
                _SPOKEN: filters.language,
                "score >= %(min_score)s": filters.min_score,
            }
        )
        parameters = {**_make_search_query_parameters(query, filters, limit, after), "marks": _MARKS_IN_ALL}
        return await fetch_all(self._conn, MomentHit, sql.SQL(_MOMENTS).format(chosen), parameters)

    async def rebuild_search_index(self) -> int:
        await self._conn.execute("SELECT set_config('statement_timeout', '0', true)")
        return int(await fetch_value(self._conn, "SELECT search.rebuild()") or 0)


def _make_search_query_parameters(
    query: str, filters: SearchFilters, limit: int, after: SearchCursor
) -> dict[str, object]:
    return {
        **asdict(filters),
        "query": _NON_EXCLUDING_DASHES.sub(" ", query),
        "limit": limit,
        "rank": after.rank,
        "id": after.id,
        "mark": MARK_START + MARK_STOP,
    }


_OF_VIDEO: LiteralString = "EXISTS (SELECT FROM videos WHERE identifier = %(video)s AND videos.id = "
_SPOKEN: LiteralString = """EXISTS (
    SELECT FROM transcripts WHERE transcripts.video_id = moments.video_id AND language = %(language)s
)"""
_SCORED: LiteralString = """EXISTS (
    SELECT FROM moments WHERE moments.video_id = found.video_id AND score >= %(min_score)s
)"""

_TRANSCRIPTS: LiteralString = """
    WITH queries AS MATERIALIZED (
        SELECT query,
               CASE WHEN query::text LIKE '%%!%%' THEN query
                    ELSE regexp_replace(query::text, '<(-|[0-9]+)>', '&', 'g')::tsquery END AS candidates,
               regexp_replace(querytree(query), '&|<(-|[0-9]+)>', '|', 'g')::tsquery AS any_word
        FROM websearch_to_tsquery('english', %(query)s) AS query
    ), found AS MATERIALIZED (
        SELECT id, video_id FROM transcripts
        WHERE to_tsvector('english', full_text) @@ (SELECT candidates FROM queries){}
    ), ranked AS MATERIALIZED (
        SELECT found.id, found.video_id, ts_rank(document, query) AS rank
        FROM queries CROSS JOIN found JOIN search.transcripts ON transcript_id = found.id
        WHERE (candidates = query OR document @@ query){}
    ), hits AS MATERIALIZED (
        SELECT id, video_id, rank FROM ranked
        WHERE (rank, -id) < (%(rank)s::real, -%(id)s)
        ORDER BY rank DESC, id
        LIMIT %(limit)s
    ), said AS (
        SELECT transcript_id, position, text, start_time, end_time,
               row_number() OVER (
                   PARTITION BY transcript_id ORDER BY ts_rank(document, any_word) DESC, position
               ) AS place
        FROM queries CROSS JOIN search.segments
        WHERE document @@ any_word AND transcript_id = ANY ((SELECT array_agg(id) FROM hits)::integer[])
    ), jumps AS MATERIALIZED (
        SELECT transcript_id, (array_agg(text ORDER BY place))[1] AS best,
               json_agg(
                   json_build_object('start_time', start_time, 'end_time', end_time) ORDER BY position
               )::text AS times
        FROM said WHERE place <= %(segments)s GROUP BY transcript_id
    )
    SELECT hits.id, videos.identifier, videos.title, hits.rank,
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

_MOMENTS: LiteralString = """
    WITH queries AS MATERIALIZED (
        SELECT websearch_to_tsquery('english', %(query)s) AS query
    ), ranked AS MATERIALIZED (
        SELECT moments.id, ts_rank(to_tsvector('english', title), (SELECT query FROM queries)) AS rank
        FROM moments
        WHERE to_tsvector('english', title) @@ (SELECT query FROM queries){}
    ), hits AS MATERIALIZED (
        SELECT id, rank FROM ranked
        WHERE (rank, -id) < (%(rank)s::real, -%(id)s)
        ORDER BY rank DESC, id
        LIMIT %(limit)s
    )
    SELECT hits.id, videos.identifier, videos.title, moments.identifier, moments.title, start_time, end_time, score,
           rank, ts_headline('english', translate(moments.title, %(mark)s, ''), query, %(marks)s)
    FROM queries CROSS JOIN hits
    JOIN moments ON moments.id = hits.id
    JOIN videos ON videos.id = moments.video_id
    ORDER BY rank DESC, hits.id
    """
