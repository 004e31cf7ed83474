"""The folders of imported libraries: rows refer to files in them, which are read and never changed."""

import contextlib
import os
from pathlib import Path

from app.core.config import Settings


class Libraries:
    """What `library_dirs` names, and what imports on this machine have noted in `data_dir`."""

    def __init__(self, settings: Settings) -> None:
        self._named = tuple(folder.absolute() for folder in settings.library_dirs)
        self._notes = settings.data_dir / "libraries"

    def list(self) -> tuple[Path, ...]:
        """Return the folders; it reads a small file."""
        try:
            noted = self._notes.read_text("utf-8", "surrogateescape").split("\0")
        except OSError:
            noted = []
        return (*self._named, *(Path(line) for line in noted if line))

    def add(self, folder: Path) -> None:
        """Note a folder whose files rows refer to from now on."""
        folder = folder.absolute()
        if folder in self.list():
            return
        self._notes.parent.mkdir(parents=True, exist_ok=True)
        with open(self._notes, "ab") as notes, contextlib.suppress(OSError):
            notes.write(os.fsencode(folder) + b"\0")
            notes.flush()
            os.fsync(notes.fileno())
