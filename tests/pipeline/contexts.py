"""What a stage gets to work with, over a database and a storage of a test's own."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from app.ai.protocols import Embedder, Models, MomentFinder, Transcriber
from app.core.config import Settings
from app.core.errors import ModelMissing, ModelNotConfigured
from app.database import Connection, Database, open_async_connection
from app.models.runs import ClaimedRun, RunRequest, next_stage
from app.models.stages import RunType, Stage
from app.pipeline.context import RunContext
from app.repositories import VideoRepository
from app.repositories.stage_queue import StageQueueRepository
from app.storage import open_storage
from tests.factories import make_video

_numbers = count(1)


class NoModels:
    """A registry without models."""

    async def get_transcriber(self, key: str) -> Transcriber:
        raise ModelNotConfigured(key, ())

    async def get_finder(self, key: str) -> MomentFinder:
        raise ModelNotConfigured(key, ())

    async def get_embedder(self, key: str) -> Embedder:
        raise ModelMissing("There is no embedder here")


@asynccontextmanager
async def make_context(
    database_url: str,
    folder: Path,
    *,
    run_type: RunType = RunType.FULL,
    subject: str = "",
    video: Mapping[str, Any] | None = None,
    models: Models | None = None,
    settings: Mapping[str, Any] | None = None,
    **request: Any,
) -> AsyncIterator[RunContext]:
    """Claim a new run over a video and give its context; `request` are fields of `RunRequest`.

    What is stored lies in `folder/media`, the run's own folder is `folder/run`, and files in `folder/library` may be
    named by rows. `video` are columns of the video; one that is there already is found by its `identifier`.
    """
    (folder / "run").mkdir(parents=True, exist_ok=True)
    (folder / "library").mkdir(exist_ok=True)
    values = {"database_url": database_url, "data_dir": folder / "data", "library_dirs": (folder / "library",)}
    chosen = Settings(**{**values, "storage_url": (folder / "media").as_uri(), **(settings or {})})
    storage = open_storage(chosen)
    try:
        database = open_database(chosen)
        async with database.connect() as conn:
            run = await _claim(conn, run_type, subject, dict(video or {}), RunRequest(**request))
        yield RunContext(run, chosen, database, storage, models or NoModels(), folder / "run")
    finally:
        await storage.aclose()


def open_database(settings: Settings) -> Database:
    """Return a database that opens a connection for each block, so that a test needs no pool."""

    async def open_connection() -> AsyncGenerator[Connection, None]:
        async with open_async_connection(settings) as conn:
            yield conn

    return Database(open_connection)


async def take_over(context: RunContext) -> RunContext:
    """Return the same run in the hands of another worker on the same machine."""
    async with context.database.connect() as conn:
        cursor = await conn.execute("SELECT stage FROM pipeline.runs WHERE run_id = %s", (context.run.id,))
        row = await cursor.fetchone()
        assert row
        owner = f"worker-{next(_numbers)}"
        run = await StageQueueRepository(conn).claim_stage(context.run.identifier, Stage(row[0]), owner, 0)
    assert run is not None
    return RunContext(run, context.settings, context.database, context.storage, context.models, context.folder)


async def _claim(
    conn: Connection, run_type: RunType, subject: str, video: dict[str, Any], request: RunRequest
) -> ClaimedRun:
    work = StageQueueRepository(conn)
    known = await VideoRepository(conn).get_by_identifier(video.get("identifier", ""))
    name = (known or await make_video(conn, **video)).identifier
    identifier = f"pipeline:{name}:{next(_numbers)}"
    accepted = await work.enqueue_run(
        name, identifier, run_type, datetime.now(UTC).replace(tzinfo=None), request, subject
    )
    assert accepted is not None
    assert accepted.run_id is not None, accepted
    run = await work.claim_stage(identifier, next_stage(run_type, {}), f"worker-{next(_numbers)}", 60)
    assert run is not None
    return run
