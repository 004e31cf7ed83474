"""Vectors of passages: made by workers from the queue, and again when the model changes; searches by meaning."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import psycopg
import pytest

from app.ai.embeddings import OpenAIEmbedder
from app.ai.local.embeddings import LocalEmbedder
from app.ai.protocols import Embedder
from app.ai.registry import ModelConfig, ModelKind
from app.ai.service import ModelServiceClient, open_http_client
from app.core.config import Settings
from app.core.errors import ModelMissing, ModelNotConfigured, TransientFailure
from app.database import Connection, open_async_connection
from app.repositories.search_conditions import SearchFilters
from app.repositories.search_vectors import SearchVectorRepository
from app.services.search import SearchMode
from app.services.search_index import index_if_little, rebuild
from app.services.search_vectors import PassageEmbedder, QueryEmbedder, get_semantic_status
from tests.ai.model_server import ModelServer
from tests.conftest import Statements
from tests.factories import make_transcript, make_video
from tests.migrations.rows import fetch
from tests.pipeline.contexts import NoModels
from tests.services.searching import make_database, search

LOCAL = "local/all-MiniLM-L6-v2"
TALKS = {
    "bread": "Knead the dough until it is smooth, let it rise overnight, and put the loaf into a hot oven.",
    "space": "The rover landed in a crater and looked for traces of water below the rocks of the red planet.",
    "money": "Put aside a part of your salary every month, and let compound interest work for you.",
}


class Embedders(NoModels):
    """Embedders by their keys."""

    def __init__(self, **embedders: Embedder) -> None:
        self._embedders: Mapping[str, Embedder] = embedders

    async def get_embedder(self, key: str) -> Embedder:
        if key not in self._embedders:
            raise ModelNotConfigured(key, self._embedders)
        return self._embedders[key]


class BrokenEmbedder:
    """Raises an error for each text, or for those with a word."""

    name = "local/broken"

    def __init__(self, error: Exception, word: str = "") -> None:
        self.error = error
        self.calls = 0
        self._word = word

    async def embed(self, texts: Sequence[str], *, at_once: int = 1) -> list[list[float]]:
        self.calls += 1
        if any(self._word in text for text in texts):
            raise self.error
        return [[1.0, 0.0] for _ in texts]


@pytest.fixture(scope="module")
def local() -> Iterator[LocalEmbedder]:
    embedder = LocalEmbedder()
    yield embedder
    embedder.close()


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        server.embed(lambda text: [float("dough" in text or "pastry" in text), float("planet" in text), 0.1])
        yield server


@pytest.fixture
async def service(server: ModelServer) -> AsyncIterator[OpenAIEmbedder]:
    async with open_http_client() as client:
        config = ModelConfig("Vectors", server.url, model_id="three", kind=ModelKind.EMBEDDING)
        yield OpenAIEmbedder(ModelServiceClient(client, "vectors", config))


async def make_talks(conn: Connection) -> None:
    for name, text in TALKS.items():
        await make_talk(conn, name, text)


async def make_talk(conn: Connection, name: str, text: str) -> None:
    video = await make_video(conn, identifier=name)
    words = [{"word": word, "start": float(at), "end": at + 0.5} for at, word in enumerate(text.split())]
    await make_transcript(conn, video_id=video.id, full_text=text, word_timestamps=words)
    await index_if_little(conn)


async def embed(conn: Connection, key: str = "local", **embedders: Embedder) -> None:
    await PassageEmbedder(make_database(conn), Embedders(**embedders), key, lambda: False).embed_waiting()


async def list_videos(conn: Connection, text: str, embedder: Embedder, **request: Any) -> list[str]:
    page = await search(conn, text, Embedders(local=embedder, vectors=embedder), **request)
    return [hit.video.identifier for hit in page.videos]


async def test_passages_are_found_by_their_meaning_once_they_have_vectors(
    conn: Connection, local: LocalEmbedder
) -> None:
    await make_talks(conn)
    assert await list_videos(conn, "baking pastry", local) == []
    await embed(conn, local=local)
    assert (await list_videos(conn, "baking pastry", local))[0] == "bread"
    assert (await list_videos(conn, "Mars", local))[0] == "space"
    assert (await list_videos(conn, "saving for retirement", local, mode=SearchMode.SEMANTIC))[0] == "money"
    assert await list_videos(conn, "baking pastry", local, mode=SearchMode.TEXT) == []


async def test_a_hit_by_meaning_has_the_time_at_which_its_part_begins_and_a_snippet(
    conn: Connection, local: LocalEmbedder
) -> None:
    filler = "And then we went on to the next thing of that day. " * 7
    await make_talk(conn, "talk", filler + TALKS["space"] + " " + filler)
    await embed(conn, local=local)
    (hit,) = (await search(conn, "Mars exploration", Embedders(local=local))).videos
    (occurrence,) = hit.occurrences
    assert occurrence.start is not None
    assert 60_000 <= occurrence.start <= 84_000
    assert "rover" in hit.snippet


async def test_a_hit_by_words_and_meaning_has_the_times_of_its_words(conn: Connection, local: LocalEmbedder) -> None:
    await make_talks(conn)
    await embed(conn, local=local)
    page = await search(conn, "oven", Embedders(local=local))
    assert page.is_semantic
    assert page.videos[0].video.identifier == "bread"
    assert page.videos[0].snippet.count("<mark>oven</mark>") == 1
    assert [occurrence.start for occurrence in page.videos[0].occurrences] == [18_000]


async def test_quoted_phrases_are_found_by_their_words_only(conn: Connection, local: LocalEmbedder) -> None:
    await make_talks(conn)
    await embed(conn, local=local)
    page = await search(conn, '"red planet"', Embedders(local=local))
    assert not page.is_semantic
    assert [hit.video.identifier for hit in page.videos] == ["space"]


async def test_words_that_must_or_must_not_be_said_hold_for_hits_by_meaning_too(
    conn: Connection, local: LocalEmbedder
) -> None:
    await make_talks(conn)
    await embed(conn, local=local)
    assert "bread" not in await list_videos(conn, "baking -dough", local)
    assert await list_videos(conn, "baking +salary", local) == ["money"]


async def test_what_must_not_be_said_is_left_out_before_the_nearest_are_chosen(
    conn: Connection, local: LocalEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.repositories.search_vectors._NEAREST", 1)
    await make_talk(conn, "crater", TALKS["space"])
    await make_talk(conn, "moon", "A rover explores the far side of the moon.")
    await embed(conn, local=local)
    mode = SearchMode.SEMANTIC
    assert await list_videos(conn, "rover on the red planet", local, mode=mode) == ["crater"]
    assert await list_videos(conn, "rover on the red planet -crater", local, mode=mode) == ["moon"]
    assert await list_videos(conn, "rover on the red planet +moon", local, mode=mode) == ["moon"]


async def test_words_are_searched_until_the_first_vectors_are_there(conn: Connection, local: LocalEmbedder) -> None:
    await make_talks(conn)
    broken = BrokenEmbedder(TransientFailure("No"))
    with pytest.raises(TransientFailure):
        await embed(conn, local=broken)
    page = await search(conn, "rover", Embedders(local=broken), mode=SearchMode.SEMANTIC)
    assert ([hit.video.identifier for hit in page.videos], page.is_semantic) == (["space"], False)
    assert broken.calls == 1


async def test_filters_hold_for_hits_by_meaning_too(conn: Connection, local: LocalEmbedder) -> None:
    await make_talks(conn)
    await embed(conn, local=local)
    assert await list_videos(conn, "exploration of Mars", local, filters=SearchFilters(video="space")) == ["space"]
    assert "space" not in await list_videos(conn, "exploration of Mars", local, filters=SearchFilters(video="bread"))
    assert await list_videos(conn, "exploration of Mars", local, filters=SearchFilters(language="de")) == []


async def test_the_next_page_goes_on_after_the_last_hit(conn: Connection, local: LocalEmbedder) -> None:
    for number in range(5):
        await make_talk(conn, f"talk-{number}", TALKS["space"])
    await embed(conn, local=local)
    first = await search(conn, "Mars exploration", Embedders(local=local), limit=3)
    rest = await search(conn, "Mars exploration", Embedders(local=local), limit=3, cursor=first.next_cursor or "")
    assert len({hit.video.id for hit in [*first.videos, *rest.videos]}) == 5
    assert rest.next_cursor is None
    assert all(hit.occurrences and hit.snippet for hit in rest.videos)


async def test_nothing_that_has_to_do_with_a_query_is_found_for_nonsense(
    conn: Connection, local: LocalEmbedder
) -> None:
    await make_talks(conn)
    await embed(conn, local=local)
    assert await list_videos(conn, "zqxv jjkw ppfh", local) == []


async def test_without_pgvector_searches_go_on_by_words(conn: Connection, local: LocalEmbedder) -> None:
    await make_talks(conn)
    await conn.execute("DROP EXTENSION vector CASCADE")
    await embed(conn, local=local)
    page = await search(conn, "oven", Embedders(local=local))
    assert [hit.video.identifier for hit in page.videos] == ["bread"]
    assert not page.is_semantic
    assert (await get_semantic_status(conn)).model is None
    assert await SearchVectorRepository(conn).enable_extensions() == []
    await embed(conn, local=local)
    assert (await list_videos(conn, "baking pastry", local))[0] == "bread"


async def test_a_change_of_the_model_serves_the_old_vectors_until_the_new_ones_are_complete(
    conn: Connection, local: LocalEmbedder, service: OpenAIEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.search_vectors._PASSAGES_AT_ONCE", 1)
    await make_talks(conn)
    await embed(conn, local=local)
    broken = BrokenEmbedder(TransientFailure("No"), "dough")
    monkeypatch.setattr(broken, "name", service.name)
    with pytest.raises(TransientFailure):
        await embed(conn, "vectors", local=local, vectors=broken)
    status = await get_semantic_status(conn)
    assert (status.model, status.next_model, status.passages) == (LOCAL, "vectors/three", 3)
    assert status.waiting >= 1
    models = Embedders(local=local, vectors=service)
    assert (await search(conn, "baking pastry", models)).videos[0].video.identifier == "bread"
    await conn.execute("UPDATE search.unembedded SET claimed_until = '-infinity'")
    await embed(conn, "vectors", local=local, vectors=service)
    status = await get_semantic_status(conn)
    assert (status.model, status.next_model, status.waiting) == ("vectors/three", None, 0)
    assert await fetch(conn, "SELECT DISTINCT model FROM search.vectors") == [("vectors/three",)]


async def test_vectors_of_a_service_may_have_any_length(conn: Connection, service: OpenAIEmbedder) -> None:
    await make_talks(conn)
    await embed(conn, "vectors", vectors=service)
    assert (await list_videos(conn, "pastry", service))[0] == "bread"


async def test_a_change_back_keeps_the_vectors_that_are_there(
    conn: Connection, local: LocalEmbedder, service: OpenAIEmbedder
) -> None:
    await make_talks(conn)
    await embed(conn, local=local)
    rows = await fetch(conn, "SELECT passage_id, model, xmin::text FROM search.vectors ORDER BY 1")
    vectors = SearchVectorRepository(conn)
    await vectors.set_wanted_model("vectors/three")
    assert (await vectors.get_progress()).waiting == 3
    await vectors.set_wanted_model(LOCAL)
    assert (await vectors.get_progress()).waiting == 0
    assert (await get_semantic_status(conn)).next_model is None
    assert await fetch(conn, "SELECT passage_id, model, xmin::text FROM search.vectors ORDER BY 1") == rows


async def test_passages_whose_text_stays_keep_their_vectors(conn: Connection, local: LocalEmbedder) -> None:
    await make_talks(conn)
    await embed(conn, local=local)
    await rebuild(conn, lambda done, total: None)
    assert (await get_semantic_status(conn)).waiting == 0
    await conn.execute("UPDATE transcripts SET full_text = 'Something else' WHERE full_text LIKE 'Knead%'")
    await index_if_little(conn)
    assert (await get_semantic_status(conn)).waiting == 1
    assert await fetch(conn, "SELECT count(DISTINCT passage_id) FROM search.vectors") == [(2,)]


async def test_a_passage_that_a_model_refuses_keeps_no_other_waiting(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.search_vectors._PASSAGES_AT_ONCE", 1)
    await make_talks(conn)
    embedder = BrokenEmbedder(TransientFailure("No"), "rover")
    while True:
        try:
            await embed(conn, local=embedder)
            break
        except TransientFailure:
            pass
    assert (await get_semantic_status(conn)).waiting == 1


async def test_what_a_stopped_worker_has_claimed_is_free_again_at_once(conn: Connection, local: LocalEmbedder) -> None:
    await make_talks(conn)
    started = asyncio.Event()

    class Endless(BrokenEmbedder):
        async def embed(self, texts: Sequence[str], *, at_once: int = 1) -> list[list[float]]:
            started.set()
            await asyncio.Event().wait()
            return []

    task = asyncio.create_task(embed(conn, local=Endless(TransientFailure("No"))))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await embed(conn, local=local)
    assert (await get_semantic_status(conn)).waiting == 0


async def test_workers_embed_each_passage_once(own_database_url: str, service: OpenAIEmbedder) -> None:
    settings = Settings(database_url=own_database_url)
    async with open_async_connection(settings) as conn:
        for number in range(100):
            await make_talk(conn, f"talk-{number}", f"Dough {number}.")
        async with open_async_connection(settings) as second, open_async_connection(settings) as third:
            await asyncio.gather(*(embed(each, "vectors", vectors=service) for each in (conn, second, third)))
        assert await fetch(conn, "SELECT count(*), count(DISTINCT passage_id) FROM search.vectors") == [(100, 100)]
        assert (await get_semantic_status(conn)).waiting == 0


async def test_a_local_model_that_is_not_installed_is_reported_once(
    conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.services.search_vectors")
    await make_talks(conn)
    embedder = PassageEmbedder(
        make_database(conn), Embedders(local=BrokenEmbedder(ModelMissing("Not installed"))), "local", lambda: False
    )
    for _ in range(2):
        await embedder.embed_waiting()
        await conn.execute("UPDATE search.unembedded SET claimed_until = '-infinity'")
    assert caplog.messages.count("Nothing is found by meaning: Not installed") == 1


async def test_a_search_goes_on_without_a_model_that_fails_and_leaves_it_alone_for_a_while(
    conn: Connection, local: LocalEmbedder
) -> None:
    await make_talks(conn)
    await embed(conn, local=local)
    broken = BrokenEmbedder(TransientFailure("No"))
    broken.name = LOCAL
    embedder = QueryEmbedder(make_database(conn), Embedders(local=broken))
    assert await embedder.embed("baking") is None
    assert await embedder.embed("baking") is None
    assert broken.calls == 1


async def test_the_vector_of_a_query_is_computed_once(conn: Connection, service: OpenAIEmbedder) -> None:
    await make_talks(conn)
    await embed(conn, "vectors", vectors=service)
    embedder = QueryEmbedder(make_database(conn), Embedders(vectors=service))
    first = await embedder.embed("pastry")
    assert first is not None
    assert first == await embedder.embed("pastry")
    assert len(first.values) == 3


async def test_the_model_of_queries_is_read_every_two_seconds(
    conn: Connection, service: OpenAIEmbedder, monkeypatch: pytest.MonkeyPatch, statements: Statements
) -> None:
    await make_talks(conn)
    now = 1000.0
    monkeypatch.setattr("app.services.search_vectors.time.monotonic", lambda: now)
    embedder = QueryEmbedder(make_database(conn), Embedders(vectors=service))
    assert await embedder.embed("pastry") is None
    await embed(conn, "vectors", vectors=service)
    now += 1.9
    with statements as counted:
        assert await embedder.embed("pastry") is None
    assert counted == 0
    now += 0.2
    with statements as counted:
        vector = await embedder.embed("pastry")
    assert counted == 1
    assert vector is not None
    assert vector.model == "vectors/three"


async def test_vectors_are_no_source_of_truth(conn: Connection, local: LocalEmbedder) -> None:
    await make_talks(conn)
    await embed(conn, local=local)
    await conn.execute("DELETE FROM transcripts")
    assert await fetch(conn, "SELECT count(*) FROM search.vectors") == [(0,)]


def test_the_index_is_used_where_the_library_is_large(own_database_url: str) -> None:
    """A sequential scan of all vectors takes a second for a library of 10,000 talks."""
    with psycopg.connect(own_database_url, autocommit=True) as conn:
        conn.execute("""
            INSERT INTO videos (identifier, cloud_url) VALUES ('talk', 'file:///talk.mp4');
            INSERT INTO transcripts (video_id, full_text, word_timestamps, segment_timestamps)
            SELECT id, 'a', '[]', '[]' FROM videos;
            INSERT INTO search.passages (transcript_id, position, text, document)
            SELECT transcripts.id, position, 'a', 'a' FROM transcripts, generate_series(1, 3000) AS position;
            INSERT INTO search.vectors (passage_id, model, first_word, last_word, embedding)
            SELECT id, 'm', 0, 0, (SELECT array_agg(random()) FROM generate_series(1, 384 + 0 * position))::halfvec
            FROM search.passages;
            ANALYZE;
        """)
        query = "[" + ",".join(["0.5"] * 384) + "]"
        rows = conn.execute(
            """
            EXPLAIN SELECT passage_id FROM search.vectors WHERE vector_dims(embedding) = 384 AND model = 'm'
            ORDER BY embedding::halfvec(384) <=> %s::halfvec(384) LIMIT 200
            """,
            [query],
        ).fetchall()
    assert any("idx_vectors_embedding_384" in line for (line,) in rows), rows
