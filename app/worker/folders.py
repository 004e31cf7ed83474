"""The folders of runs' temporary files on this machine, one for each run."""

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
    """The folders of runs below `DATA_DIR/work`, which all workers of the machine share."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.data_dir / "work"

    def get_folder_path(self, run_identifier: str) -> Path:
        return self._root / hashlib.sha256(run_identifier.encode()).hexdigest()[:32]

    async def remove_folder(self, run_identifier: str) -> None:
        await asyncio.to_thread(_remove_folder, self.get_folder_path(run_identifier))

    async def remove_folders_of_ended_runs(self, database: Database, executing_runs: Iterable[str]) -> None:
        folders = await asyncio.to_thread(self._list_folders)
        async with database.connect() as conn:  # after the folders: of a run that began since, none is listed
            running = await StageQueueRepository(conn).list_identifiers_of_running_runs()
        for folder in folders - {self.get_folder_path(identifier) for identifier in running.union(executing_runs)}:
            await asyncio.to_thread(_remove_folder, folder)

    def _list_folders(self) -> set[Path]:
        return set(self._root.iterdir()) if self._root.is_dir() else set()


def _remove_folder(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        _log.warning("The folder %s cannot be removed: %s", folder, error.strerror)
