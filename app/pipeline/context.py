"""One run in the hands of a worker, and the functions of its stages."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from app.ai.protocols import Models
from app.core.config import Settings
from app.core.errors import VideoDeleted
from app.database import Connection, Database
from app.models.run import ClaimedRun
from app.models.stages import STAGE_TABLE, Stage, StageDefinition, WorkKind
from app.pipeline.failures import retry_outage
from app.repositories import VideoRepository
from app.repositories.claimed_runs import ClaimedRunRepository
from app.storage import Storage

T = TypeVar("T")


class RunContext:
    """One run in the hands of one worker.

    `folder` is the run's own place for files in the making, empty on a machine that has taken the run over; it goes
    when the run ends.
    """

    def __init__(
        self,
        run: ClaimedRun,
        settings: Settings,
        database: Database,
        storage: Storage,
        models: Models,
        folder: Path,
    ) -> None:
        self.run = run
        self.settings = settings
        self.database = database
        self.storage = storage
        self.models = models
        self.folder = folder
        self.progress: Mapping[str, int] | None = None

    def report(self, **progress: int) -> None:
        """Say how far the stage is, in the words of the HTTP contract; it costs nothing and may be called often."""
        self.progress = progress

    @asynccontextmanager
    async def commit(self) -> AsyncIterator[Connection]:
        """Give a connection in a transaction that holds the video and only commits while the run is this worker's.

        Raises `RunLost`, which `VideoDeleted` is too.
        """
        async with self.database.connect() as conn, conn.transaction():
            if await VideoRepository(conn).lock(self.run.video) is None:  # before the run, as one who deletes does
                raise VideoDeleted
            await ClaimedRunRepository(conn).hold(self.run)
            yield conn

    async def save(self, write: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `write` in one `commit()`, and again while PostgreSQL is away: a model is not paid twice for an outage.

        A commit whose answer was lost is made again, too. Raises what `commit` and `write` raise.
        """

        async def commit() -> T:
            async with self.commit() as conn:
                return await write(conn)

        return await retry_outage(f"A result of run {self.run.identifier}", commit)


@dataclass(frozen=True, slots=True)
class LoadedStage:
    """A stage with its code; `StageDefinition` says what its functions return."""

    definition: StageDefinition
    skip_reason: Callable[[RunContext], Awaitable[str | None]]
    run_stage: Callable[[RunContext], Awaitable[Mapping[str, Any]]]


def load_stages(kinds: Collection[WorkKind] = tuple(WorkKind)) -> Mapping[Stage, LoadedStage]:
    """Import the stages of some kinds of work, and with them what only a worker needs."""
    return {stage: _load_stage(row) for stage, row in STAGE_TABLE.items() if row.kind in kinds}


def _load_stage(definition: StageDefinition) -> LoadedStage:
    module = import_module(definition.module)
    return LoadedStage(definition, module.skip_reason, module.run_stage)
