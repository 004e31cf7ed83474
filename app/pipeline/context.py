"""One run in a worker, and the functions of its stages."""

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
from app.models.runs import ClaimedRun
from app.models.stages import STAGE_TABLE, Stage, StageDefinition, WorkKind
from app.pipeline.failures import retry_outage
from app.repositories import VideoRepository
from app.repositories.stages import ClaimedRunRepository
from app.storage import Storage

T = TypeVar("T")


class RunContext:
    """A claimed run, and what its stages need.

    `folder` holds the run's temporary files on this machine, until the run ends.
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
        """Set the counters of the stage's progress, which are published from time to time: cheap enough for a loop."""
        self.progress = progress

    @asynccontextmanager
    async def commit(self) -> AsyncIterator[Connection]:
        """Open a transaction that locks the video, and the stage against other workers.

        Raises `RunLost`, and its subclass `VideoDeleted`.
        """
        async with self.database.connect() as conn, conn.transaction():
            if await VideoRepository(conn).lock_video(self.run.video) is None:  # in the order of a deletion
                raise VideoDeleted
            await ClaimedRunRepository(conn).lock_claim(self.run)
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
    """A stage with the functions of its module, which `StageDefinition` describes."""

    definition: StageDefinition
    skip_reason: Callable[[RunContext], Awaitable[str | None]]
    run_stage: Callable[[RunContext], Awaitable[Mapping[str, Any]]]


def load_stages(kinds: Collection[WorkKind] = tuple(WorkKind)) -> Mapping[Stage, LoadedStage]:
    """Import the modules of the stages, of some kinds of work: only workers need what these import."""
    return {stage: _load_stage(row) for stage, row in STAGE_TABLE.items() if row.kind in kinds}


def _load_stage(definition: StageDefinition) -> LoadedStage:
    module = import_module(definition.module)
    return LoadedStage(definition, module.skip_reason, module.run_stage)
