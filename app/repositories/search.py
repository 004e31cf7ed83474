"""Searching passages of transcripts and titles of videos and moments, by their documents in the schema `search`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, LiteralString

from psycopg import sql

from app.database.queries import Repository, fetch_all, fetch_one
from app.repositories.search_conditions import (
    WEIGHT_UNIT,
    Conditions,
    SearchFilters,
    make_document_conditions,
    make_matches,
    make_owner_filters,
    make_passage_filters,
    make_transcript_conditions,
)

_MAX_RANKED = 1000  # passages, and titles
_MAX_READ = 50  # passages whose words are counted


@dataclass(frozen=True, slots=True)
class FacetCount:
    """How many of the found videos have a value of a facet."""

    facet: str
    value: str
    videos: int


@dataclass(frozen=True, slots=True)
class AskedLexemes:
    """Lexemes whose positions are asked for, and beginnings of others; `following` words of each have times too."""

    lexemes: list[str]
    prefixes: list[str]
    following: int = 0


@dataclass(frozen=True, slots=True)
class PassagePosition:
    """A passage, and the indices of two words of it whose times are asked for, if any."""

    passage_id: int
    words: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class RankedPassage:
    id: int
    video_id: int
    score: float


@dataclass(frozen=True, slots=True)
class RankedTitle:
    """A title of a video, or of a moment where `moment_id` is given."""

    video_id: int | None
    moment_id: int | None
    score: float


@dataclass(frozen=True, slots=True)
class FoundPassage:
    """A passage with where the lexemes that were asked for are in it: each of them with a position, from 1.

    `word_starts` and `word_ends` are the times of the words there in milliseconds, None where they are unknown. Words
    whose times alone were asked for have the lexeme ''.
    """

    id: int
    video_id: int
    text: str
    lexemes: list[str]
    word_positions: list[int]
    word_starts: list[int | None]
    word_ends: list[int | None]

    @property
    def positions(self) -> dict[str, list[int]]:
        """The positions of each lexeme."""
        found: dict[str, list[int]] = {}
        for lexeme, position in zip(self.lexemes, self.word_positions, strict=True):
            if lexeme:
                found.setdefault(lexeme, []).append(position)
        return found

    @property
    def times(self) -> dict[int, tuple[int, int]]:
        """Start and end of the words by their positions, where they are known."""
        timed = zip(self.word_positions, self.word_starts, self.word_ends, strict=True)
        return {position: (start, end) for position, start, end in timed if start is not None and end is not None}


@dataclass(frozen=True, slots=True)
class SpokenWords:
    """A passage with the times of its words, in milliseconds."""

    text: str
    word_starts: list[int]
    word_ends: list[int]


@dataclass(frozen=True, slots=True)
class FoundVideo:
    """A video, with the `positions` of lexemes in its title, from 1."""

    id: int
    identifier: str
    title: str | None
    positions: dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class FoundMoment:
    """A moment whose title matches; times in seconds."""

    id: int
    video_identifier: str
    video_title: str | None
    identifier: str
    title: str
    start_time: float
    end_time: float
    score: int | None
    positions: dict[str, list[int]]


class SearchRepository(Repository):
    """Statements of a search. `video_ids` restricts one to the videos of a page."""

    async def rank_passages(
        self, conditions: Conditions, filters: SearchFilters, video_ids: Sequence[int] | None = None
    ) -> list[RankedPassage]:
        """Return the best passages, the best first."""
        parameters: dict[str, Any] = {**asdict(filters), "video_ids": list(video_ids or ())}
        of_transcript = make_transcript_conditions(conditions, parameters)
        matches = make_matches(
            conditions,
            parameters,
            "id, transcript_id, position",
            "search.passages",
            make_passage_filters(filters, video_ids) + of_transcript.condition,
        )
        statement = sql.SQL(_RANKED_PASSAGES).format(of_transcript.queries, matches)
        return await fetch_all(self._conn, RankedPassage, statement, parameters)

    async def rank_titles(self, conditions: Conditions, filters: SearchFilters) -> list[RankedTitle]:
        """Return the best titles of videos and moments, the best first; among equals the shorter ones."""
        if filters.speaker is not None:
            return []  # titles have no speakers
        parameters: dict[str, Any] = asdict(filters)
        of_owner = make_owner_filters(filters, _VIDEO_OF_TITLE, "titles.moment_id")
        of_document = make_document_conditions(conditions, parameters)
        matches = make_matches(conditions, parameters, "id", "search.titles", of_owner + of_document)
        return await fetch_all(self._conn, RankedTitle, sql.SQL(_RANKED_TITLES).format(matches), parameters)

    async def count_facets(self, video_ids: Sequence[int]) -> list[FacetCount]:
        """Return how many of the videos have each language, speaker, model, score, year and length, most first."""
        return await fetch_all(self._conn, FacetCount, _FACETS, {"ids": list(video_ids)})

    async def get_passages(self, passages: Sequence[PassagePosition], asked: AskedLexemes) -> list[FoundPassage]:
        return await fetch_all(
            self._conn,
            FoundPassage,
            _PASSAGES,
            {
                "ids": [passage.passage_id for passage in passages],
                "firsts": [passage.words and passage.words[0] for passage in passages],
                "lasts": [passage.words and passage.words[1] for passage in passages],
                **asdict(asked),
            },
        )

    async def get_spoken_words(self, video_id: int, time: int) -> SpokenWords | None:
        """Return the passage of a video in whose middle a time is rather than in others', in milliseconds."""
        return await fetch_one(
            self._conn,
            SpokenWords,
            """
            SELECT text, word_starts, word_ends
            FROM search.passages JOIN transcripts ON transcripts.id = transcript_id
            WHERE video_id = %(video_id)s AND word_starts[1] <= %(time)s
              AND word_ends[cardinality(word_ends)] >= %(time)s
            ORDER BY abs(word_starts[1] + word_ends[cardinality(word_ends)] - 2 * %(time)s) LIMIT 1
            """,
            {"video_id": video_id, "time": time},
        )

    async def get_videos(self, video_ids: Sequence[int], asked: AskedLexemes) -> list[FoundVideo]:
        return await fetch_all(
            self._conn,
            FoundVideo,
            sql.SQL(
                """
                SELECT videos.id, identifier, title, {}
                FROM videos LEFT JOIN search.titles ON titles.video_id = videos.id
                WHERE videos.id = ANY (%(ids)s)
                """
            ).format(_POSITIONS),
            {"ids": list(video_ids), **asdict(asked)},
        )

    async def get_moments(self, moment_ids: Sequence[int], asked: AskedLexemes) -> list[FoundMoment]:
        return await fetch_all(
            self._conn,
            FoundMoment,
            sql.SQL(
                """
                SELECT moments.id, videos.identifier, videos.title, moments.identifier, moments.title, start_time,
                       end_time, score, {}
                FROM moments
                JOIN videos ON videos.id = moments.video_id
                LEFT JOIN search.titles ON moment_id = moments.id
                WHERE moments.id = ANY (%(ids)s)
                """
            ).format(_POSITIONS),
            {"ids": list(moment_ids), **asdict(asked)},
        )


# Cutting the positions of a lexeme out of the text of a document is three times as fast as expanding the document.
_PASSAGES: LiteralString = r"""
    SELECT passages.id, video_id, text, found.*
    FROM unnest(%(ids)s::bigint[], %(firsts)s::integer[], %(lasts)s::integer[]) AS given (id, first, last)
    JOIN search.passages ON passages.id = given.id
    JOIN transcripts ON transcripts.id = transcript_id
    CROSS JOIN LATERAL (SELECT ' ' || document::text AS shown OFFSET 0) AS written
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(lexeme), '{}'), coalesce(array_agg(position), '{}'),
               coalesce(array_agg(word_starts[position]), '{}'), coalesce(array_agg(word_ends[position]), '{}')
        FROM (
            SELECT CASE WHEN following = 0 THEN lexeme ELSE '' END, position::integer + following
            FROM unnest(%(lexemes)s::text[]) AS lexeme
            CROSS JOIN string_to_table(split_part(split_part(
                shown, ' ''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || ''':', 2
            ), ' ', 1), ',') AS position
            CROSS JOIN generate_series(0, %(following)s) AS following
            UNION ALL
            SELECT CASE WHEN following = 0 THEN lexeme ELSE '' END, position + following
            FROM unnest(document) AS expanded (lexeme, positions)
            CROSS JOIN unnest(positions) AS position
            CROSS JOIN generate_series(0, %(following)s) AS following
            WHERE %(prefixes)s::text[] <> '{}' AND lexeme ^@ ANY (%(prefixes)s::text[])
              AND lexeme <> ALL (%(lexemes)s::text[])
            UNION ALL SELECT '', first + 1 WHERE first IS NOT NULL
            UNION ALL SELECT '', last + 1 WHERE last IS NOT NULL
        ) AS said (lexeme, position)
    ) AS found
"""

_POSITIONS = sql.SQL(
    """(
    SELECT coalesce(jsonb_object_agg(lexeme, positions), '{}') FROM unnest(document)
    WHERE lexeme = ANY (%(lexemes)s::text[]) OR lexeme ^@ ANY (%(prefixes)s::text[])
)"""
)


# Among equals those early in their transcripts come first: of a frequent word, passages of many videos. Documents lie
# outside of their rows: only those of the best are read, where how often words are said may decide.
_RANKED_PASSAGES: LiteralString = f"""
    WITH {{}}ranked AS MATERIALIZED (
        SELECT id, transcript_id, position, sum(weight) AS score FROM ({{}}) AS matched
        GROUP BY id, transcript_id, position
    ), best AS MATERIALIZED (
        SELECT ranked.id, video_id, score, row_number() OVER (ORDER BY score DESC, position, ranked.id) AS number
        FROM ranked JOIN transcripts ON transcripts.id = transcript_id
        ORDER BY score DESC, position, ranked.id
        LIMIT {_MAX_RANKED}
    )
    SELECT best.id, video_id,
           best.score / {WEIGHT_UNIT}::float8 + coalesce(ts_rank(document, %(counted)s::tsquery), 0) * 0.1 AS rank
    FROM best LEFT JOIN search.passages ON passages.id = best.id AND number <= {_MAX_READ}
    ORDER BY rank DESC, best.id
"""

_VIDEO_OF_TITLE: LiteralString = """
    coalesce(titles.video_id, (SELECT owners.video_id FROM moments AS owners WHERE owners.id = titles.moment_id))
"""

_RANKED_TITLES: LiteralString = f"""
    WITH ranked AS MATERIALIZED (
        SELECT id, sum(weight) AS score FROM ({{}}) AS matched GROUP BY id
    )
    SELECT video_id, moment_id,
           ranked.score / {WEIGHT_UNIT}::float8 + ts_rank(document, %(counted)s::tsquery) * 0.1 AS rank
    FROM ranked JOIN search.titles ON titles.id = ranked.id
    ORDER BY rank DESC, length(document), titles.id
    LIMIT {_MAX_RANKED}
"""

_FACETS: LiteralString = """
    WITH counted AS (
        SELECT 'language' AS facet, language AS value, video_id FROM transcripts
        UNION ALL SELECT 'speaker', speaker, video_id
        FROM search.passages JOIN transcripts ON transcripts.id = transcript_id CROSS JOIN unnest(speakers) AS speaker
        UNION ALL SELECT 'model', generation_model, video_id FROM moments WHERE generation_model IS NOT NULL
        UNION ALL SELECT 'score', score::text, video_id FROM moments WHERE score IS NOT NULL
        UNION ALL SELECT 'year', to_char(created_at, 'YYYY'), id FROM videos
        UNION ALL SELECT 'duration', CASE WHEN duration_seconds < 240 THEN 'under 4 minutes'
                                          WHEN duration_seconds < 1200 THEN '4 to 20 minutes'
                                          ELSE 'over 20 minutes' END, id
        FROM videos WHERE duration_seconds IS NOT NULL
    )
    SELECT facet, value, count(DISTINCT video_id) FROM counted WHERE video_id = ANY (%(ids)s)
    GROUP BY facet, value
    ORDER BY facet, count(DISTINCT video_id) DESC, value
"""
