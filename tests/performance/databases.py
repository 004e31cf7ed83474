"""The databases that are measured over, on a PostgreSQL of the measurement's own, and its count of statements."""

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import psycopg

from app.embedded import EmbeddedPostgres
from tests.performance.dataset import (
    FREE_FROM_SECONDS,
    index_library,
    load_bare_videos,
    load_library,
    load_short_videos,
    migrate,
    record_library,
)
from tests.performance.text import Speech

SEED = 20260208
# Defaults, which keep every commit, except for what would run in the background during a measurement.
SETTINGS = {"shared_preload_libraries": "pg_stat_statements", "autovacuum": "off", "max_wal_size": "4GB"}
_RELOAD_SECONDS = 0.3


class Databases:
    """`library`, with everything a video can have, `bare`, with many videos that have nothing, and `runs`, with videos
    whose files are in `media`."""

    def __init__(self, postgres: EmbeddedPostgres, media: Path, videos: int, bare_videos: int) -> None:
        self._postgres = postgres
        self._media = media
        self.videos = videos
        self._bare_videos = bare_videos
        self.queries: list[str] = []
        self._administer("CREATE EXTENSION pg_stat_statements")
        self._administer("ALTER SYSTEM SET pg_stat_statements.track = none")
        self.create("template")
        migrate(self.url("template"))

    def url(self, name: str) -> str:
        return self._postgres.database_url(name)

    def create(self, name: str) -> None:
        """Create a database: the migrated, empty one, or a copy of it."""
        template = "template0" if name == "template" else "template"
        self._run("postgres", f"DROP DATABASE IF EXISTS {name}")
        self._run("postgres", f"CREATE DATABASE {name} TEMPLATE {template}")

    def forget_search(self, name: str) -> None:
        """Leave the upkeep of this project's own search tables to this project."""
        self._run(name, "ALTER TABLE transcripts DISABLE TRIGGER transcripts_follow")
        self._run(name, "ALTER TABLE videos DISABLE TRIGGER videos_follow_title")
        self._run(name, "ALTER TABLE moments DISABLE TRIGGER moments_follow_title")

    def fill(self, name: str) -> None:
        self.create(name)
        if name == "bare":
            load_bare_videos(self.url(name), self._bare_videos)
        elif name == "runs":
            load_short_videos(self.url(name), self._media, self._bare_videos // 5)
        else:
            speech = Speech(SEED)
            load_library(self.url(name), record_library(speech, self.videos))
            asyncio.run(index_library(self.url(name)))
            self.queries = speech.queries(200)
        self._run(name, "VACUUM ANALYZE")  # leaves nothing for the background to do while something is measured
        self._administer("CHECKPOINT")

    def identifiers(self, name: str) -> list[str]:
        """Return the identifiers of all videos, shuffled."""
        identifiers = [row[0] for row in self._run(name, "SELECT identifier FROM videos ORDER BY identifier")]
        random.Random(SEED).shuffle(identifiers)  # noqa: S311  an order, not keys
        return identifiers

    def remove_added_moments(self) -> None:
        self._run("library", f"DELETE FROM moments WHERE start_time >= {FREE_FROM_SECONDS}")
        self._run("library", "VACUUM moments")

    def remove_runs(self) -> None:
        self._run("runs", "TRUNCATE pipeline_history CASCADE")

    def list_runs(self) -> list[tuple[Any, ...]]:
        """Return the video, type and status of each run, in the order in which they were accepted."""
        return self._run("runs", "SELECT video_id, pipeline_type, status FROM pipeline_history ORDER BY id")

    def count_rows(self, name: str) -> dict[str, int]:
        tables = ("videos", "transcripts", "moments")
        return {table: self._run(name, f"SELECT count(*) FROM {table}")[0][0] for table in tables}

    def begin_counting(self) -> None:
        self._track("top")
        self._administer("SELECT pg_stat_statements_reset()")

    def end_counting(self, name: str) -> int:
        """Return how many statements the database `name` has run since `begin_counting`."""
        self._track("none")
        statement = """
            SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements
            JOIN pg_database ON pg_database.oid = dbid WHERE datname = %s
            """
        return int(self._administer(statement, [name])[0][0])

    def _track(self, what: str) -> None:
        self._administer(f"ALTER SYSTEM SET pg_stat_statements.track = {what}")
        self._administer("SELECT pg_reload_conf()")
        time.sleep(_RELOAD_SECONDS)  # every backend reads the settings before its next statement

    def _run(self, name: str, statement: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
        return _execute(self.url(name), statement, parameters)

    def _administer(self, statement: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run what the role of the servers may not, for which the server lets the superuser in."""
        return _execute(self._postgres.superuser_url, statement, parameters)


def _execute(url: str, statement: str, parameters: list[Any] | None) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        cursor = conn.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []
