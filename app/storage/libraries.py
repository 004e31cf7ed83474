"""The folders of imported libraries: rows refer to files in them, which are read and never changed."""

import os
from pathlib import Path

from app.core.config import Settings
from app.core.errors import StorageUnavailable
from app.core.private import prepare_data_folder, private_opener


class Libraries:
    """What `library_dirs` names, and what imports on this machine have noted in `data_dir`."""

    def __init__(self, settings: Settings) -> None:
        self._named = tuple(Path(os.path.abspath(folder)) for folder in settings.library_dirs)
        self._settings = settings
        self._notes = settings.data_dir / "libraries"
        self._read: tuple[tuple[int, int], tuple[Path, ...]] | None = None

    def list(self) -> tuple[Path, ...]:
        """Return the folders. A small file is looked at, so that an import is seen without a restart."""
        try:
            status = os.stat(self._notes)
            seen = (status.st_mtime_ns, status.st_size)
            if self._read is None or self._read[0] != seen:
                self._read = seen, _parse(self._notes.read_bytes())
            noted = self._read[1]
        except OSError:
            noted = ()
        return self._named + noted

    def add(self, folder: Path) -> None:
        """Note a folder whose files rows refer to from now on. Raises `StorageUnavailable`."""
        folder = Path(os.path.abspath(folder))
        if folder in self.list():
            return
        try:
            prepare_data_folder(self._settings)
            with open(self._notes, "ab", opener=private_opener) as notes:
                notes.write(os.fsencode(folder) + b"\0")
                notes.flush()
                os.fsync(notes.fileno())
        except OSError as error:
            raise StorageUnavailable(f"The folder of an import cannot be noted in DATA_DIR: {error}") from None


def _parse(notes: bytes) -> tuple[Path, ...]:
    """Return what is written to its end: the rest of a note that was cut off names another folder."""
    return tuple(Path(os.fsdecode(note)) for note in notes.split(b"\0")[:-1] if os.path.isabs(note))
