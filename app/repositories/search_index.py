"""What searching needs: passages, documents of titles, and how many documents have each word."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import LiteralString

from app.database.queries import (
    Repository,
    exists,
    fetch_all,
    fetch_one,
    fetch_returned_row,
    fetch_value,
    lift_statement_timeout,
)

# An upgrade that changes how documents are made raises it: then all transcripts and titles are indexed anew.
INDEX_VERSION = 1

_LETTERS_PER_MISTAKE = 4  # of a misspelt word, for each that is missing or too many


@dataclass(frozen=True, slots=True)
class LexemeCount:
    """A lexeme of a word of the query, and in how many documents it was when the words were counted.

    An empty lexeme: the word is a stop word in so many languages of the library.
    """

    word: int
    lexeme: str
    documents: int


@dataclass(frozen=True, slots=True)
class UnindexedCount:
    """What waits to be indexed: transcripts, the stored bytes of their texts, and titles.

    `indexed` is how many documents there were when their words were counted. Where the database is read only, such as a
    replica, nothing can be indexed.
    """

    transcripts: int
    bytes: int
    titles: int
    indexed: int
    is_read_only: bool


@dataclass(frozen=True, slots=True)
class RebuildProgress:
    """How many transcripts and titles still wait in a rebuild."""

    transcripts: int
    titles: int

    def __bool__(self) -> bool:
        return bool(self.transcripts or self.titles)


@dataclass(frozen=True, slots=True)
class UnindexedTranscript:
    """A transcript whose passages are missing or out of date."""

    id: int
    full_text: str
    word_timestamps: str  # JSON
    segment_timestamps: str  # JSON
    language: str


@dataclass(frozen=True, slots=True)
class UnindexedTitle:
    """A title whose document is missing or out of date; a video may have none, then its identifier is shown."""

    id: int
    title: str | None
    video_identifier: str
    language: str | None


@dataclass(frozen=True, slots=True)
class NewPassage:
    """A passage to be stored: times in milliseconds of each word of `text`, `document` as the text of a tsvector."""

    text: str
    word_starts: list[int] | None
    word_ends: list[int] | None
    speakers: list[str]
    document: str


class SearchIndexRepository(Repository):
    """The tables of the schema `search`; the caller begins the transactions."""

    async def count_unindexed(self, most: int) -> UnindexedCount:
        """Return how much waits to be indexed; of transcripts and titles at most `most` are counted."""
        return await fetch_returned_row(
            self._conn,
            UnindexedCount,
            """
            SELECT count(transcripts.id), coalesce(sum(pg_column_size(full_text)), 0), (
                       SELECT count(*) FROM (
                           SELECT FROM search.titles WHERE index_version < %(version)s LIMIT %(most)s
                       ) AS waiting),
                   coalesce((SELECT counted_documents FROM search.state), 0),
                   current_setting('transaction_read_only')::boolean
            FROM (
                SELECT transcript_id FROM search.transcripts WHERE index_version < %(version)s LIMIT %(most)s
            ) AS waiting
            JOIN transcripts ON transcripts.id = transcript_id
            """,
            {"version": INDEX_VERSION, "most": most},
        )

    async def has_unindexed(self, growth: float) -> bool:
        """Return whether anything waits to be indexed, or the words to be counted: so much more has been added."""
        return bool(
            await fetch_value(
                self._conn,
                """
                SELECT EXISTS (SELECT FROM search.transcripts WHERE index_version < %(version)s)
                    OR EXISTS (SELECT FROM search.titles WHERE index_version < %(version)s)
                    OR EXISTS (SELECT FROM search.state WHERE added_documents > counted_documents * %(growth)s::float8)
                """,
                {"version": INDEX_VERSION, "growth": growth},
            )
        )

    async def lock_unindexed_transcript(self) -> UnindexedTranscript | None:
        """Lock a transcript that waits to be indexed until the transaction ends, and return it; the oldest first.

        None also where that one is being changed or deleted.
        """
        return await fetch_one(
            self._conn,
            UnindexedTranscript,
            """
            SELECT id, full_text, word_timestamps::text, segment_timestamps::text, language
            FROM transcripts
            WHERE id = ANY (ARRAY(
                SELECT transcript_id FROM search.transcripts WHERE index_version < %(version)s
                ORDER BY index_version DESC, transcript_id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
            ))
            FOR KEY SHARE SKIP LOCKED
            """,
            {"version": INDEX_VERSION},
        )

    async def lock_unindexed_titles(self, limit: int) -> list[int]:
        """Lock titles that wait to be indexed until the transaction ends, and return the ids of their rows."""
        cursor = await self._conn.execute(
            """
            SELECT id FROM search.titles WHERE index_version < %(version)s
            ORDER BY index_version DESC, id LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
            """,
            {"version": INDEX_VERSION, "limit": limit},
        )
        return [row[0] for row in await cursor.fetchall()]

    async def get_unindexed_titles(self, ids: Sequence[int]) -> list[UnindexedTitle]:
        """Return titles by the ids of their rows: as they are once these are locked."""
        return await fetch_all(
            self._conn,
            UnindexedTitle,
            """
            SELECT titles.id, CASE WHEN moment_id IS NULL THEN videos.title ELSE moments.title END, videos.identifier,
                   language
            FROM search.titles
            LEFT JOIN moments ON moments.id = titles.moment_id
            JOIN videos ON videos.id = coalesce(titles.video_id, moments.video_id)
            LEFT JOIN transcripts ON transcripts.video_id = videos.id
            WHERE titles.id = ANY (%(ids)s)
            """,
            {"ids": list(ids)},
        )

    async def find_stems(self, stemmer: str, forms: Collection[str]) -> dict[str, list[str]]:
        """Return the stems of words by a text search dictionary; words that it does not know or stops at have none."""
        stems: dict[str, list[str]] = defaultdict(list)
        cursor = await self._conn.execute(
            """
            SELECT form, stem
            FROM pg_ts_dict
            CROSS JOIN unnest(%(forms)s::text[]) AS form
            CROSS JOIN unnest(ts_lexize(pg_ts_dict.oid::regdictionary, form)) AS stem
            WHERE dictname = %(stemmer)s AND dictnamespace = 'pg_catalog'::regnamespace
            """,
            {"stemmer": stemmer, "forms": list(forms)},
        )
        for form, stem in await cursor.fetchall():
            stems[form].append(stem)
        return stems

    async def replace_passages(self, transcript_id: int, passages: Sequence[NewPassage]) -> None:
        """Store the passages of a transcript instead of those it had; those whose text stays keep their vectors."""
        await self._conn.execute(
            """
            WITH indexed AS (
                UPDATE search.transcripts SET index_version = %(version)s WHERE transcript_id = %(id)s
            )
            DELETE FROM search.passages
            WHERE transcript_id = %(id)s AND NOT EXISTS (
                SELECT FROM unnest(%(texts)s::text[]) WITH ORDINALITY AS given (text, position)
                WHERE given.text = passages.text AND given.position = passages.position
            )
            """,
            {"version": INDEX_VERSION, "id": transcript_id, "texts": [passage.text for passage in passages]},
        )
        async with self._conn.cursor() as cursor:
            await cursor.executemany(_STORE_PASSAGE, [
                {"id": transcript_id, "position": position, "text": passage.text, "starts": passage.word_starts,
                 "ends": passage.word_ends, "speakers": passage.speakers, "document": passage.document}
                for position, passage in enumerate(passages, 1)
            ])  # fmt: skip

    async def set_title_documents(self, documents: dict[int, str]) -> None:
        """Store the documents of titles, texts of tsvectors by the ids of their rows."""
        await self._conn.execute(
            """
            UPDATE search.titles SET document = given.document::tsvector, index_version = %(version)s
            FROM unnest(%(ids)s::bigint[], %(documents)s::text[]) AS given (id, document)
            WHERE titles.id = given.id
            """,
            {"version": INDEX_VERSION, "ids": list(documents), "documents": list(documents.values())},
        )

    async def add_to_state(self, documents: int, stemmers: Collection[str]) -> tuple[int, int]:
        """Count documents that were added; return the numbers of those that were counted, and added since then."""
        cursor = await self._conn.execute(
            """
            INSERT INTO search.state AS state (added_documents, stemmers)
            VALUES (%(documents)s, %(stemmers)s::text[])
            ON CONFLICT (is_only_row) DO UPDATE
            SET added_documents = state.added_documents + EXCLUDED.added_documents,
                stemmers = ARRAY(SELECT name FROM unnest(state.stemmers || EXCLUDED.stemmers) AS name
                                 GROUP BY name ORDER BY name)
            RETURNING counted_documents, added_documents
            """,
            {"documents": documents, "stemmers": sorted(stemmers)},
        )
        counted, added = await anext(cursor)
        return counted, added

    async def get_state(self) -> tuple[int, int]:
        """Return the numbers of documents that were counted, and added since then."""
        cursor = await self._conn.execute("SELECT counted_documents, added_documents FROM search.state")
        return await cursor.fetchone() or (0, 0)

    async def count_words(self) -> None:
        """Count in how many documents each word is, which reads all of them; the transaction has no time limit."""
        await lift_statement_timeout(self._conn)
        await self._conn.execute(_COUNT_WORDS)

    async def mark_for_rebuild(self) -> None:
        """Let everything be indexed anew, and searched as it is until then. The transaction has no time limit."""
        await lift_statement_timeout(self._conn)
        await self._conn.execute("UPDATE search.transcripts SET index_version = -1")
        await self._conn.execute("UPDATE search.titles SET index_version = -1")

    async def get_rebuild_progress(self) -> RebuildProgress:
        return await fetch_returned_row(
            self._conn,
            RebuildProgress,
            """
            SELECT (SELECT count(*) FROM search.transcripts WHERE index_version = -1),
                   (SELECT count(*) FROM search.titles WHERE index_version = -1)
            """,
        )

    async def count_transcripts(self) -> int:
        return int(await fetch_value(self._conn, "SELECT count(*) FROM search.transcripts") or 0)

    async def list_lexemes(
        self, lexemes: Sequence[tuple[int, str]], forms: Sequence[tuple[int, str]]
    ) -> list[LexemeCount]:
        """Return lexemes by the numbers of their words, and those of the stems of `forms` in all languages."""
        return await fetch_all(
            self._conn,
            LexemeCount,
            """
            WITH stemmed AS MATERIALIZED (
                SELECT word, ts_lexize(pg_ts_dict.oid::regdictionary, form) AS stems
                FROM search.state
                JOIN pg_ts_dict ON dictname = ANY (stemmers) AND dictnamespace = 'pg_catalog'::regnamespace
                CROSS JOIN unnest(%(form_words)s::integer[], %(forms)s::text[]) AS given (word, form)
            ), asked AS (
                SELECT * FROM unnest(%(lexeme_words)s::integer[], %(lexemes)s::text[]) AS given (word, lexeme)
                UNION
                SELECT word, mark || stem
                FROM stemmed CROSS JOIN unnest(stems) AS stem CROSS JOIN unnest(ARRAY['', '~']) AS mark
            )
            SELECT asked.word, lexeme, coalesce(documents, 0)
            FROM asked LEFT JOIN search.words ON words.word = lexeme
            UNION ALL
            SELECT word, '', count(*) FROM stemmed WHERE stems = '{}' GROUP BY word
            """,
            {
                "lexeme_words": [word for word, _ in lexemes],
                "lexemes": [lexeme for _, lexeme in lexemes],
                "form_words": [word for word, _ in forms],
                "forms": [form for _, form in forms],
            },
        )

    async def count_documents_with_prefixes(self, prefixes: Sequence[str]) -> dict[str, int]:
        """Return in about how many documents a word with each beginning is: one of the 20 most frequent ones."""
        cursor = await self._conn.execute(
            """
            SELECT prefix, (
                SELECT coalesce(sum(documents), 0)::integer FROM (
                    SELECT documents FROM search.words WHERE word >= prefix AND word < prefix || chr(1114111)
                    ORDER BY documents DESC LIMIT 20
                ) AS found
            )
            FROM unnest(%(prefixes)s::text[]) AS prefix
            """,
            {"prefixes": list(prefixes)},
        )
        return dict(await cursor.fetchall())

    async def find_similar_words(self, words: Sequence[str]) -> dict[str, str]:
        """Return for each word the one that is spelt most alike, if any; none without `search.enable_spelling()`."""
        if not await exists(self._conn, "SELECT WHERE to_regclass('search.idx_words_trigrams') IS NOT NULL"):
            return {}
        cursor = await self._conn.execute(
            """
            SELECT asked, similar_word
            FROM unnest(%(words)s::text[]) AS asked
            CROSS JOIN LATERAL (
                SELECT word AS similar_word FROM search.words
                WHERE word %% asked AND word !~ '^~'
                  AND abs(length(word) - length(asked)) <= length(asked) / %(letters)s
                ORDER BY similarity(word, asked) DESC, documents DESC, word
                LIMIT 1
            ) AS found
            """,
            {"words": list(words), "letters": _LETTERS_PER_MISTAKE},
        )
        return dict(await cursor.fetchall())


# A row that was updated has an xmax.
_STORE_PASSAGE: LiteralString = """
    WITH stored AS (
        INSERT INTO search.passages (transcript_id, position, text, word_starts, word_ends, speakers, document)
        VALUES (%(id)s, %(position)s, %(text)s, %(starts)s, %(ends)s, %(speakers)s, %(document)s)
        ON CONFLICT (transcript_id, position) DO UPDATE
        SET word_starts = EXCLUDED.word_starts, word_ends = EXCLUDED.word_ends, speakers = EXCLUDED.speakers,
            document = EXCLUDED.document
        RETURNING id, xmax = 0 AS is_new
    )
    INSERT INTO search.unembedded (passage_id) SELECT id FROM stored WHERE is_new
"""

_COUNT_WORDS: LiteralString = """
    WITH counted AS MATERIALIZED (
        SELECT word COLLATE "C" AS word, ndoc
        FROM ts_stat('SELECT document FROM search.passages UNION ALL SELECT document FROM search.titles')
    ), gone AS (
        DELETE FROM search.words WHERE NOT EXISTS (SELECT FROM counted WHERE counted.word = words.word)
    ), number AS (
        UPDATE search.state
        SET counted_documents = (SELECT count(*) FROM search.passages) + (SELECT count(*) FROM search.titles),
            added_documents = 0
    )
    INSERT INTO search.words (word, documents) SELECT word, ndoc FROM counted ORDER BY word
    ON CONFLICT (word) DO UPDATE SET documents = EXCLUDED.documents WHERE words.documents <> EXCLUDED.documents
"""
