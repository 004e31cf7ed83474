"""The folders where runs keep files in the making, one for each run."""

import asyncio
import hashlib
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from app.core.config import Settings
from app.database import Database
from app.repositories.stage_queue import StageQueueRepository

_log = logging.getLogger(__name__)


class RunFolders:
    """Folders below `DATA_DIR`. Several workers on one machine share them: who takes a run over finds its files."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.data_dir / "work"

    def get(self, identifier: str) -> Path:
        """Return the folder of a run, which may not be there yet."""
        return self._root / hashlib.sha256(identifier.encode()).hexdigest()[:32]

    async def remove(self, identifier: str) -> None:
        await asyncio.to_thread(_remove, self.get(identifier))

    async def remove_leftovers(self, database: Database, in_hand: Iterable[str]) -> None:
        """Remove the folders of runs that have ended, or are gone; in those `in_hand` a stage may still write."""
        kept = set(in_hand)
        found = await asyncio.to_thread(self._list)
        async with database.connect() as conn:
            running = await StageQueueRepository(
                conn
            ).list_identifiers_of_running_runs()  # read later: of a run that began since, none is found
        for folder in found - {self.get(identifier) for identifier in kept | running}:
            await asyncio.to_thread(_remove, folder)

    def _list(self) -> set[Path]:
        return set(self._root.iterdir()) if self._root.is_dir() else set()


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        _log.warning("The folder %s cannot be removed: %s", folder, error.strerror)
