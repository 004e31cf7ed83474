"""`make quality`: known items and phrases, searched in a library of real talks."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from app.ai.local.embeddings import LocalEmbedder
from app.ai.protocols import Embedder, MomentFinder, Transcriber
from app.core.config import Settings
from app.core.errors import ModelNotConfigured
from app.database import Connection, Database, open_async_connection
from app.database.migrations import create_database
from app.embedded import EmbeddedPostgres
from app.services.search import SearchMode, SearchPage, SearchRequest, search_library
from app.services.search_index import rebuild
from app.services.search_vectors import PassageEmbedder, QueryEmbedder, get_semantic_status
from tests.performance.dataset import migrate
from tests.quality.talks import Talk, TitledMoment, read_talks, store_talk

_OCCURRENCES = 5  # of a search, that a person looks at
_NEAR_SECONDS = 30.0  # from the moment that is meant
_PHRASES, _PHRASE_WORDS = 500, 3
_EXACT_SECONDS = 0.3
_SEED = 20260208


def main() -> None:
    parser = argparse.ArgumentParser(prog="make quality", description=__doc__)
    parser.add_argument("talks", type=Path, help="a folder of talks, see tests/quality/talks.py")
    options = parser.parse_args()
    talks = read_talks(options.talks)
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder) / "postgres", None, {"fsync": "off"}) as postgres,
    ):
        url = postgres.database_url("quality")
        create_database(Settings(database_url=url))
        migrate(url)
        asyncio.run(_measure(url, talks))


async def _measure(url: str, talks: Sequence[Talk]) -> None:
    async with open_async_connection(Settings(database_url=url)) as conn:
        for talk in talks:
            await store_talk(conn, talk)
        await rebuild(conn, lambda done, total: None)
        library = _Library(conn)
        seconds = await library.embed()
        sys.stdout.write(f"{await library.count_passages():6} passages embedded in {seconds:.1f} s\n")
        moments = [moment for talk in talks for moment in talk.moments]
        for mode in SearchMode:
            found = [await library.finds_moment(moment, mode) for moment in moments]
            _print_share(
                f"known items, {mode}: a title, the right video and time among the first five occurrences", found
            )
        phrases = [await library.finds_phrase(talk, first) for talk, first in _choose_phrases(talks)]
        _print_share("phrases of three words, found at their time", phrases)


def _print_share(name: str, found: Sequence[bool]) -> None:
    sys.stdout.write(f"{sum(found) / max(len(found), 1):6.3f} {name} ({len(found)})\n")


class _LocalModels:
    """The embedder of this machine, for any key."""

    def __init__(self) -> None:
        self._embedder = LocalEmbedder()

    async def get_embedder(self, key: str) -> Embedder:
        return self._embedder

    async def get_transcriber(self, key: str) -> Transcriber:
        raise ModelNotConfigured(key, ())

    async def get_finder(self, key: str) -> MomentFinder:
        raise ModelNotConfigured(key, ())


class _Library:
    """Searches over one connection."""

    def __init__(self, conn: Connection) -> None:
        async def open_connection() -> AsyncGenerator[Connection]:
            yield conn

        self._conn = conn
        self._database, self._models = Database(open_connection), _LocalModels()
        self._queries = QueryEmbedder(self._database, self._models)

    async def embed(self) -> float:
        """Compute the vectors of all passages, and return the seconds that it took."""
        began = time.perf_counter()
        await PassageEmbedder(self._database, self._models, "local", lambda: False).embed_waiting()
        return time.perf_counter() - began

    async def count_passages(self) -> int:
        return (await get_semantic_status(self._conn)).passages

    async def finds_moment(self, moment: TitledMoment, mode: SearchMode) -> bool:
        page = await self._search(moment.title, 20, mode)
        return any(
            video == moment.talk and moment.start - _NEAR_SECONDS <= seconds <= moment.end + _NEAR_SECONDS
            for video, seconds in _list_best_occurrences(page)
        )

    async def finds_phrase(self, talk: Talk, first: int) -> bool:
        words = talk.words[first : first + _PHRASE_WORDS]
        page = await self._search('"' + " ".join(word for word, _, _ in words) + '"', 100, SearchMode.HYBRID)
        return any(
            hit.video.identifier == talk.name and abs((occurrence.start or 0) / 1000 - words[0][1]) <= _EXACT_SECONDS
            for hit in page.videos
            for occurrence in hit.occurrences
        )

    async def _search(self, text: str, limit: int, mode: SearchMode) -> SearchPage:
        return await search_library(self._database, self._queries, SearchRequest(text, mode=mode), limit)


def _list_best_occurrences(page: SearchPage) -> list[tuple[str, float]]:
    """Return the videos and seconds of the heaviest occurrences of a page, the best first."""
    occurrences = [
        (occurrence.weight, hit.video.identifier, occurrence.start)
        for hit in page.videos
        for occurrence in hit.occurrences
    ]
    best = sorted(occurrences, key=lambda found: -found[0])[:_OCCURRENCES]
    return [(video, start / 1000) for _, video, start in best if start is not None]


def _choose_phrases(talks: Sequence[Talk]) -> list[tuple[Talk, int]]:
    source = random.Random(_SEED)  # noqa: S311  a choice, not keys
    chosen = source.choices(talks, [len(talk.words) for talk in talks], k=_PHRASES)
    return [(talk, source.randrange(len(talk.words) - _PHRASE_WORDS)) for talk in chosen]


if __name__ == "__main__":
    main()
