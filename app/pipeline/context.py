"""The context of a claimed run in a worker, and the functions of its stages."""

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
from app.models import Video
from app.models.runs import ClaimedRun
from app.models.stages import STAGE_TABLE, Stage, StageDefinition, WorkKind
from app.pipeline.failures import retry_outage
from app.repositories import VideoRepository
from app.repositories.stages import ClaimedRunRepository
from app.storage import Storage

T = TypeVar("T")


class RunContext:
    """A claimed run with what its stages need; `folder` holds its temporary files on this machine."""

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

    def report_progress(self, **counters: int) -> None:
        """Set the counters of the stage's progress, which the worker publishes every half second."""
        self.progress = counters

    def report_share(self, share: float) -> None:
        self.report_progress(percentage=int(share * 100))

    async def find_video(self) -> Video | None:
        async with self.database.connect() as conn:
            return await VideoRepository(conn).get(self.run.video_id)

    async def get_video(self) -> Video:
        if (video := await self.find_video()) is None:
            raise VideoDeleted
        return video

    @asynccontextmanager
    async def claim_transaction(self) -> AsyncIterator[Connection]:
        """Open a transaction that locks the video and this worker's claim. Raises `RunLost`, `VideoDeleted`."""
        async with self.database.connect() as conn, conn.transaction():
            if await VideoRepository(conn).lock_video(self.run.video) is None:  # in the order of a deletion
                raise VideoDeleted
            await ClaimedRunRepository(conn).lock_claim(self.run)
            yield conn

    async def save_result(self, write: Callable[[Connection], Awaitable[T]]) -> T:
        """Call `write` in a `claim_transaction`, and again while PostgreSQL is unavailable, also after a commit."""

        async def write_in_transaction() -> T:
            async with self.claim_transaction() as conn:
                return await write(conn)

        return await retry_outage(f"A result of run {self.run.identifier}", write_in_transaction)


@dataclass(frozen=True, slots=True)
class LoadedStage:
    """A stage's row of `STAGE_TABLE`, with the two functions of its module."""

    definition: StageDefinition
    skip_reason: Callable[[RunContext], Awaitable[str | None]]
    run_stage: Callable[[RunContext], Awaitable[Mapping[str, Any]]]


def load_stages(kinds: Collection[WorkKind] = tuple(WorkKind)) -> Mapping[Stage, LoadedStage]:
    """Import the modules of all stages of the kinds, and return their functions by stage."""
    return {stage: _load_stage(stage, row) for stage, row in STAGE_TABLE.items() if row.kind in kinds}


def _load_stage(stage: Stage, definition: StageDefinition) -> LoadedStage:
    module = import_module(f"app.pipeline.stages.{stage}")
    return LoadedStage(definition, module.skip_reason, module.run_stage)
