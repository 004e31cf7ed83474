"""Vectors of passages for searches by meaning: made by workers, and compared with the vector of a query."""

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from app.ai.protocols import Embedder, Models
from app.core.errors import ModelMissing, VideoMomentsError
from app.database import Connection, Database
from app.repositories.search_vectors import PassageVector, SearchVectorRepository, UnembeddedPassage
from app.search.passages import split_into_parts

_log = logging.getLogger(__name__)

_PASSAGES_AT_ONCE = 32
_CLAIM_SECONDS = 120.0  # after which another worker takes the passages of one that was killed
_REMEMBERED_QUERIES = 1000
_MODEL_SECONDS = 2.0  # for which the name of the model is remembered; after a change vectors of the other find nothing
_QUERY_SECONDS = 5.0  # that a search waits for a service; the first one on this machine loads the model
_PAUSE_SECONDS = 30.0  # after a failure, in which searches go without the service


@dataclass(frozen=True, slots=True)
class QueryVector:
    """The vector of a query, and the name of the model that computed it."""

    model: str
    values: Sequence[float]


class QueryEmbedder:
    """Computes the vectors of queries by the model whose vectors the library has, and remembers the last ones."""

    def __init__(self, database: Database, models: Models) -> None:
        self._database = database
        self._models = models
        self._model: str | None = None
        self._vectors: LRUCache[tuple[str, str], Sequence[float]] = LRUCache(_REMEMBERED_QUERIES)
        self._model_read_at = self._paused_until = -math.inf

    async def embed(self, text: str) -> QueryVector | None:
        """Return the vector of a query; None where the library has no vectors, or the model fails.

        No connection is held meanwhile.
        """
        model = await self._get_model()
        if model is None or not text:
            return None
        key = model, text
        if key not in self._vectors and time.monotonic() >= self._paused_until:
            try:
                async with asyncio.timeout(_QUERY_SECONDS):
                    await self._embed_with(model, text)
            except (VideoMomentsError, TimeoutError) as error:
                self._paused_until = time.monotonic() + _PAUSE_SECONDS
                reason = str(error) or "no answer"
                _log.warning("Searching without the model %s for %d s: %s", model, _PAUSE_SECONDS, reason)
        vector = self._vectors.get(key)
        return None if vector is None else QueryVector(model, vector)

    async def _get_model(self) -> str | None:
        if time.monotonic() - self._model_read_at >= _MODEL_SECONDS:
            async with self._database.connect() as conn:
                state = await SearchVectorRepository(conn).get_state()
            self._model = state.model if state else None
            self._model_read_at = time.monotonic()
        return self._model

    async def _embed_with(self, model: str, text: str) -> None:
        embedder = await self._models.get_embedder(_get_model_key(model))
        if embedder.name == model:  # else it was changed, and passages are about to be embedded anew
            (self._vectors[model, text],) = await embedder.embed([text])


class PassageEmbedder:
    """Computes the vectors of passages that wait for them, in a worker, with all cores where nothing else runs."""

    def __init__(self, database: Database, models: Models, model_key: str, is_busy: Callable[[], bool]) -> None:
        self._database = database
        self._models = models
        self._model_key = model_key
        self._is_model_set = False
        self._is_busy = is_busy
        self._is_missing = False

    async def embed_waiting(self) -> None:
        """Embed all passages that wait. A change of the setting holds from the start of a worker on.

        Does nothing where the local model is wanted and not installed.
        """
        try:
            await self._embed_all()
        except ModelMissing as error:
            if not self._is_missing:
                self._is_missing = True
                _log.info("Nothing is found by meaning: %s", error)

    async def _embed_all(self) -> None:
        async with self._database.connect() as conn:
            state = await SearchVectorRepository(conn).get_state()
        if state is None or (self._is_model_set and not state.has_waiting):
            return
        wanted_key = _get_model_key(state.wanted) if state.wanted and self._is_model_set else self._model_key
        embedder = await self._models.get_embedder(wanted_key)
        if embedder.name != state.wanted:
            _log.info("Embedding all passages with %s", embedder.name)
            async with self._database.connect() as conn, conn.transaction():
                await SearchVectorRepository(conn).set_wanted_model(embedder.name)
        self._is_model_set = True
        while await self._embed_next(embedder):
            pass
        async with self._database.connect() as conn, conn.transaction():
            await SearchVectorRepository(conn).end_model_change()

    async def _embed_next(self, embedder: Embedder) -> bool:
        async with self._database.connect() as conn:
            passages = await SearchVectorRepository(conn).claim_passages(_PASSAGES_AT_ONCE, _CLAIM_SECONDS)
        if not passages:
            return False
        try:
            vectors = await self._embed_passages(embedder, passages)
            async with self._database.connect() as conn, conn.transaction():
                await SearchVectorRepository(conn).store_vectors(embedder.name, [each.id for each in passages], vectors)
        except asyncio.CancelledError:  # after an error, others come first
            await asyncio.shield(self._release(passages))
            raise
        return True

    async def _embed_passages(self, embedder: Embedder, passages: Sequence[UnembeddedPassage]) -> list[PassageVector]:
        parts = [(passage.id, part) for passage in passages for part in split_into_parts(passage.text)]
        at_once = 1 if self._is_busy() else os.cpu_count() or 1
        vectors = await embedder.embed([part.text for _, part in parts], at_once=at_once)
        return [
            PassageVector(passage_id, part.first, part.last, vector)
            for (passage_id, part), vector in zip(parts, vectors, strict=True)
        ]

    async def _release(self, passages: Sequence[UnembeddedPassage]) -> None:
        async with self._database.connect() as conn:
            await SearchVectorRepository(conn).release_passages([each.id for each in passages])


def _get_model_key(name: str) -> str:
    return name.partition("/")[0]


@dataclass(frozen=True, slots=True)
class SemanticStatus:
    """By which model passages are found by meaning, if by any, and how many of them still wait for vectors."""

    model: str | None
    next_model: str | None
    passages: int
    waiting: int

    @property
    def wanted(self) -> str | None:
        return self.next_model or self.model


async def get_semantic_status(conn: Connection) -> SemanticStatus:
    vectors = SearchVectorRepository(conn)
    state, progress = await vectors.get_state(), await vectors.get_progress()
    models = (state.model, state.next_model) if state else (None, None)
    return SemanticStatus(*models, progress.passages, progress.waiting)
