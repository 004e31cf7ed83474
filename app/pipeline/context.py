"""What a stage has to work with."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from app.ai.protocols import Models
from app.core.config import Settings
from app.core.errors import VideoDeleted
from app.database import Connection, Database
from app.models.run import ClaimedRun
from app.repositories import VideoRepository
from app.repositories.claimed_runs import ClaimedRunRepository
from app.storage import Storage


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
