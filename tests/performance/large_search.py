"""Searches in a large library, run by `make bench-search`: beside PostgreSQL's full-text search, and beside Tantivy.

The library has transcripts of 3,000 words. Its vectors are random: only their number and length matter for the speed.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

import orjson
import psycopg
from psycopg.types.json import Jsonb

from app.ai.local.embeddings import LocalEmbedder
from app.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.performance.client import Load, Request
from tests.performance.databases import SEED, SETTINGS
from tests.performance.dataset import index_library, migrate
from tests.performance.measure import send
from tests.performance.servers import OURS, PEERS_PYTHON, RAW, ROOT, Server, Stack, free_port
from tests.performance.text import Speech

_WORDS = 3000
_QUERIES = 300
_SAVED = 60  # transcripts, for what saving one costs
_SECONDS = 10.0
_CONNECTIONS = (1, 16)
_AIMS = {"text": 20, "hybrid": 50}  # milliseconds
_MEMORY = {"shared_buffers": "1GB", "maintenance_work_mem": "1GB", "max_wal_size": "8GB"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-search", description=__doc__)
    parser.add_argument("--transcripts", type=int, default=1000, help="how many; the aims are for 10000")
    count: int = parser.parse_args().transcripts
    with tempfile.TemporaryDirectory(prefix="videomoments-search-") as name:
        folder = Path(name)
        with (
            EmbeddedPostgres(folder / "postgres", free_port(), SETTINGS | _MEMORY, superuser=True) as postgres,
            EmbeddedValkey(folder / "valkey") as valkey,
        ):
            url = postgres.database_url("postgres")
            migrate(url)
            texts = _fill(url, count)
            _print("saving a transcript, with the index of searches beside without", _compare_saving(url, texts))
            _build_index(url, count)
            queries = _choose_queries(texts)
            environment = {
                "DATABASE_URL": url,
                "REDIS_URL": valkey.url,
                "DATA_DIR": str(folder / "data"),
                "LOG_LEVEL": "warning",
            }
            _measure_servers(environment, queries)
        _measure_tantivy(folder, texts, queries)


def _print(name: str, *figures: str) -> None:
    sys.stdout.write(f"| {name.ljust(66)} | {' | '.join(figures)} |\n")
    sys.stdout.flush()


def _fill(url: str, count: int) -> list[str]:
    """Store transcripts, and return their texts."""
    speech = Speech(SEED)
    texts: list[str] = []
    with psycopg.connect(url) as conn:
        for number in range(count):
            words = speech.say(_WORDS)
            texts.append(" ".join(f"{word}{'.' if at % 15 == 14 else ''}" for at, word in enumerate(words)))
            _save(conn, f"talk-{number}", speech.title(), texts[-1])
        conn.commit()
        conn.autocommit = True
        conn.execute("VACUUM ANALYZE")
    return texts


def _save(conn: psycopg.Connection, identifier: str, title: str, text: str) -> None:
    words = [{"word": word, "start": at * 0.4, "end": at * 0.4 + 0.3} for at, word in enumerate(text.split())]
    segments = [
        {"text": " ".join(text.split()[at : at + 15]), "start": at * 0.4, "end": at * 0.4 + 6.0, "word_count": 15}
        for at in range(0, len(words), 15)
    ]
    (video_id,) = conn.execute(
        "INSERT INTO videos (identifier, title, cloud_url) VALUES (%s, %s, 'file:///talk.mp4') RETURNING id",
        [identifier, title],
    ).fetchone() or (0,)
    conn.execute(
        "INSERT INTO transcripts (video_id, full_text, word_timestamps, segment_timestamps) VALUES (%s, %s, %s, %s)",
        [video_id, text, Jsonb(words), Jsonb(segments)],
    )


def _compare_saving(url: str, texts: Sequence[str]) -> str:
    """Return the time of saving a transcript with the triggers as a multiple of that without them; nothing is kept."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with psycopg.connect(url) as conn:
        for number in range(_SAVED):
            has_triggers = number % 2 == 0
            for table in ("transcripts", "videos"):
                conn.execute(f"ALTER TABLE {table} {'ENABLE' if has_triggers else 'DISABLE'} TRIGGER USER".encode())
            began = time.perf_counter()
            _save(conn, f"saved-{number}", "Saved", texts[number % len(texts)])
            seconds[has_triggers].append(time.perf_counter() - began)
        conn.rollback()
    return f"{median(seconds[True]) / median(seconds[False]):.2f} x, aim: at most 1.3"


def _build_index(url: str, count: int) -> None:
    began = time.perf_counter()
    asyncio.run(index_library(url))
    thousands = count / 1000
    _print("indexing 1,000 transcripts", f"{(time.perf_counter() - began) / thousands:.0f} s")
    with psycopg.connect(url, autocommit=True) as conn:
        embedder = LocalEmbedder()
        conn.execute("DROP INDEX search.idx_vectors_embedding_384")
        conn.execute(
            """
            INSERT INTO search.vectors (passage_id, model, first_word, last_word, embedding)
            SELECT passages.id, %s, first, first + 99, (
                SELECT array_agg(random() - 0.5) FROM generate_series(1, 384 + 0 * position)
            )::halfvec
            FROM search.passages, unnest(ARRAY[0, 100]) AS first
            """,
            [embedder.name],
        )
        conn.execute("DELETE FROM search.unembedded")
        conn.execute("UPDATE search.state SET embedding_model = %s", [embedder.name])
        began = time.perf_counter()
        conn.execute(
            """
            CREATE INDEX idx_vectors_embedding_384 ON search.vectors
            USING hnsw ((embedding::halfvec(384)) halfvec_cosine_ops) WHERE vector_dims(embedding) = 384
            """
        )
        _print("building the index of vectors for 1,000", f"{(time.perf_counter() - began) / thousands:.0f} s")
        conn.execute("VACUUM ANALYZE")
        for relation in ("passages", "words", "vectors"):
            row = conn.execute("SELECT pg_total_relation_size(%s::regclass)", [f"search.{relation}"]).fetchone()
            _print(f"search.{relation} of 1,000 transcripts", f"{(row or [0])[0] / thousands / 2**20:,.0f} MiB")
    embedder.close()


def _choose_queries(texts: Sequence[str]) -> list[str]:
    """Return words that follow each other in a text: frequent and rare ones, as people type them."""
    source = Speech(SEED + 1).random
    queries = []
    for _ in range(_QUERIES):
        words = source.choice(texts).replace(".", "").split()
        first = source.randrange(len(words) - 5)
        queries.append(" ".join(words[first : first + source.randint(2, 5)]))
    return queries


def _measure_servers(environment: dict[str, str], queries: Sequence[str]) -> None:
    cases: list[tuple[str, Stack, dict[str, str]]] = [
        ("text", OURS, {"mode": "text"}),
        ("hybrid", OURS, {"mode": "hybrid"}),
        ("full text of whole transcripts, by PostgreSQL", RAW, {}),
    ]
    for stack in (OURS, RAW):
        with Server(stack, environment) as server:
            for name, _, parameters in (case for case in cases if case[1] is stack):
                requests = [Request(f"/api/search?{urlencode({'q': query, **parameters})}") for query in queries]
                for connections in (0, *_CONNECTIONS):  # at first unmeasured
                    load = Load(server.port, requests, connections=connections or 1, seconds=_SECONDS)
                    try:
                        result = send(stack.name, load)
                    except SystemExit:  # no answer within a minute
                        _print(name, "no answer in time")
                        break
                    if connections == 0:
                        continue
                    aim = f"aim: {_AIMS[name]}" if name in _AIMS and connections > 1 else ""
                    _print(
                        f"{name}, {connections} at once",
                        f"{result.per_second:,.0f} per second",
                        f"p50 {result.p50:.1f} ms, p99 {result.p99:.1f}",
                        aim,
                    )


def _measure_tantivy(folder: Path, texts: Sequence[str], queries: Sequence[str]) -> None:
    """Let the peers' Python index whole transcripts with Tantivy, and search them one after the other."""
    source = folder / "texts.json"
    source.write_bytes(orjson.dumps({"texts": texts, "queries": queries}))
    command = [str(PEERS_PYTHON), "-m", "tests.performance.peer_tantivy", str(source)]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    measured = orjson.loads(printed)
    _print(
        "Tantivy in one process: no times, snippets, filters or transactions",
        f"indexed 1,000 in {measured['seconds'] / len(texts) * 1000:.1f} s",
        f"p50 {measured['p50'] * 1000:.1f} ms",
    )


if __name__ == "__main__":
    main()
