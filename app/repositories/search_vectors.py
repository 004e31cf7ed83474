"""Vectors of passages: which model they are of, which passages wait for them, and those nearest to a query."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, LiteralString

from psycopg import sql

from app.database.queries import (
    Repository,
    fetch_all,
    fetch_one,
    fetch_returned_row,
    fetch_value,
    lift_statement_timeout,
)
from app.repositories.search_conditions import (
    Conditions,
    SearchFilters,
    make_passage_filters,
    make_transcript_conditions,
)

_NEAREST = 100  # parts of passages
# The index gives as many as are asked for, also where conditions leave out some. They may not be known before its use.
_SCAN_SETTINGS: LiteralString = f"""
    SELECT set_config('hnsw.ef_search', '{_NEAREST}', true), set_config('hnsw.iterative_scan', 'strict_order', true)
"""


@dataclass(frozen=True, slots=True)
class EmbeddingState:
    """The model whose vectors are searched, if any, and the one that follows it once all passages have its vectors.

    `has_waiting` where passages wait for vectors that no worker computes.
    """

    model: str | None
    next_model: str | None
    has_waiting: bool

    @property
    def wanted(self) -> str | None:
        """The model that passages get vectors of."""
        return self.next_model or self.model


@dataclass(frozen=True, slots=True)
class EmbeddingProgress:
    """How many passages there are, and how many of them wait for vectors."""

    passages: int
    waiting: int


@dataclass(frozen=True, slots=True)
class UnembeddedPassage:
    """A passage that has no vectors of the wanted model."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class PassageVector:
    """The vector of the words from `first_word` to `last_word` of a passage."""

    passage_id: int
    first_word: int
    last_word: int
    embedding: Sequence[float]


@dataclass(frozen=True, slots=True)
class NearPassage:
    """A part of a passage that is near to a query; `similarity` is the cosine, at most 1."""

    passage_id: int
    video_id: int
    first_word: int
    last_word: int
    similarity: float


class SearchVectorRepository(Repository):
    """The table search.vectors, which is there with pgvector only, and what waits for it."""

    async def enable_extensions(self) -> list[str]:
        """Create the extensions that searching can use, and return why some are not available."""
        reasons: list[str] = []
        for statement in ("SELECT search.enable_spelling()", "SELECT search.enable_vectors()"):
            async with self._conn.transaction():
                await lift_statement_timeout(self._conn)
                reason: str | None = await fetch_value(self._conn, statement)
            reasons += [reason] if reason else []
        return reasons

    async def get_state(self) -> EmbeddingState | None:
        """Return the state; None without pgvector, and before anything was indexed."""
        return await fetch_one(
            self._conn,
            EmbeddingState,
            """
            SELECT embedding_model, next_embedding_model, EXISTS (
                       SELECT FROM search.unembedded WHERE claimed_until < clock_timestamp() AT TIME ZONE 'utc'
                   )
            FROM search.state
            WHERE EXISTS (
                SELECT FROM pg_attribute
                WHERE attrelid = to_regclass('search.vectors') AND attname = 'embedding' AND NOT attisdropped
            )
            """,
        )

    async def get_progress(self) -> EmbeddingProgress:
        return await fetch_returned_row(
            self._conn,
            EmbeddingProgress,
            "SELECT (SELECT count(*) FROM search.passages), (SELECT count(*) FROM search.unembedded)",
        )

    async def set_wanted_model(self, name: str) -> None:
        """Let all passages get vectors of another model; the caller begins the transaction, which has no time limit.

        Until they have, the vectors that are there are searched; the first model's from its first vectors on.
        """
        await lift_statement_timeout(self._conn)
        parameters = {"name": name}
        await self._conn.execute(
            """
            UPDATE search.state SET next_embedding_model = nullif(%(name)s, embedding_model)
            """,
            parameters,
        )
        await self._conn.execute(
            """
            DELETE FROM search.vectors USING search.state
            WHERE model <> %(name)s AND model IS DISTINCT FROM embedding_model
            """,
            parameters,
        )
        await self._conn.execute(
            """
            WITH missing AS MATERIALIZED (
                SELECT id FROM search.passages
                WHERE NOT EXISTS (SELECT FROM search.vectors WHERE passage_id = passages.id AND model = %(name)s)
            ), done AS (
                DELETE FROM search.unembedded WHERE NOT EXISTS (SELECT FROM missing WHERE id = passage_id)
            )
            INSERT INTO search.unembedded (passage_id) SELECT id FROM missing
            ON CONFLICT (passage_id) DO UPDATE SET claimed_until = '-infinity'
            """,
            parameters,
        )

    async def claim_passages(self, limit: int, seconds: float) -> list[UnembeddedPassage]:
        """Claim passages that wait for vectors, the newest first; unless they get them others may after `seconds`."""
        return await fetch_all(
            self._conn,
            UnembeddedPassage,
            """
            UPDATE search.unembedded
            SET claimed_until = clock_timestamp() AT TIME ZONE 'utc' + make_interval(secs => %(seconds)s)
            FROM search.passages
            WHERE passages.id = passage_id AND passage_id = ANY (ARRAY(
                SELECT passage_id FROM search.unembedded
                WHERE claimed_until < clock_timestamp() AT TIME ZONE 'utc'
                ORDER BY claimed_until, passage_id DESC LIMIT %(limit)s FOR UPDATE SKIP LOCKED
            ))
            RETURNING passage_id, text
            """,
            {"limit": limit, "seconds": seconds},
        )

    async def release_passages(self, ids: Sequence[int]) -> None:
        await self._conn.execute(
            "UPDATE search.unembedded SET claimed_until = '-infinity' WHERE passage_id = ANY (%s)", [list(ids)]
        )

    async def store_vectors(self, name: str, passage_ids: Sequence[int], vectors: Sequence[PassageVector]) -> None:
        """Store the vectors of passages; the caller begins the transaction.

        Those of a model that is not wanted any more are not stored, and the passages wait for the wanted one's.
        """
        await self._conn.execute(
            """
            WITH wanted AS (
                SELECT FROM search.state WHERE coalesce(next_embedding_model, embedding_model) = %(name)s
            ), first_model AS (
                UPDATE search.state SET embedding_model = %(name)s, next_embedding_model = NULL
                WHERE embedding_model IS NULL AND next_embedding_model = %(name)s
            ), stored AS (
                INSERT INTO search.vectors (passage_id, model, first_word, last_word, embedding)
                SELECT given.passage_id, %(name)s, first_word, last_word, embedding::halfvec
                FROM unnest(%(ids)s::bigint[], %(firsts)s::integer[], %(lasts)s::integer[], %(embeddings)s::text[])
                     AS given (passage_id, first_word, last_word, embedding)
                JOIN search.passages ON passages.id = given.passage_id
                WHERE EXISTS (SELECT FROM wanted)
                ON CONFLICT (passage_id, model, first_word) DO UPDATE
                SET last_word = EXCLUDED.last_word, embedding = EXCLUDED.embedding
            )
            DELETE FROM search.unembedded WHERE passage_id = ANY (%(passages)s) AND EXISTS (SELECT FROM wanted)
            """,
            {
                "name": name,
                "passages": list(passage_ids),
                "ids": [vector.passage_id for vector in vectors],
                "firsts": [vector.first_word for vector in vectors],
                "lasts": [vector.last_word for vector in vectors],
                "embeddings": [_to_vector_text(vector.embedding) for vector in vectors],
            },
        )

    async def end_model_change(self) -> None:
        """Search the vectors of the next model once no passage waits, and delete the others.

        The transaction has no time limit.
        """
        await lift_statement_timeout(self._conn)
        await self._conn.execute(
            """
            WITH changed AS (
                UPDATE search.state SET embedding_model = next_embedding_model, next_embedding_model = NULL
                WHERE next_embedding_model IS NOT NULL AND NOT EXISTS (SELECT FROM search.unembedded)
                RETURNING embedding_model
            )
            DELETE FROM search.vectors USING changed WHERE model <> changed.embedding_model
            """
        )

    async def find_nearest(
        self,
        name: str,
        query: Sequence[float],
        filters: SearchFilters,
        conditions: Conditions,
        video_ids: Sequence[int] | None = None,
    ) -> list[NearPassage]:
        """Return the parts of passages that are nearest to the vector of a query, the nearest first.

        Vectors of other lengths than those of the indexes are found by reading all of them.
        """
        parameters: dict[str, Any] = {**asdict(filters), "video_ids": list(video_ids or ()), "name": name}
        parameters["query"] = _to_vector_text(query)
        of_transcript = make_transcript_conditions(conditions, parameters)
        statement = sql.SQL(
            """
            WITH {transcript_queries}nearest AS MATERIALIZED (
                SELECT passage_id, transcript_id, first_word, last_word,
                       {embedding} <=> %(query)s::{halfvec} AS distance
                FROM search.vectors JOIN search.passages ON passages.id = passage_id
                WHERE vector_dims(embedding) = {dimensions} AND model = %(name)s{passage_conditions}
                ORDER BY {embedding} <=> %(query)s::{halfvec} LIMIT {limit}
            )
            SELECT passage_id, video_id, first_word, last_word, 1 - distance
            FROM nearest JOIN transcripts ON transcripts.id = transcript_id
            ORDER BY distance, passage_id
            """
        ).format(
            transcript_queries=of_transcript.queries,
            embedding=sql.SQL("embedding::halfvec({})").format(len(query)),
            halfvec=sql.SQL("halfvec({})").format(len(query)),
            dimensions=sql.Literal(len(query)),
            passage_conditions=make_passage_filters(filters, video_ids) + of_transcript.condition,
            limit=sql.Literal(_NEAREST),
        )
        async with self._conn.transaction():
            await self._conn.execute(_SCAN_SETTINGS)
            return await fetch_all(self._conn, NearPassage, statement, parameters)


def _to_vector_text(vector: Sequence[float]) -> str:
    """Return a vector as pgvector reads it, to the precision of its 16-bit numbers."""
    return "[" + ",".join(f"{value:.5g}" for value in vector) + "]"
