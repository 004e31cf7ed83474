"""`python -m app import --copy` as a process of its own, for what only shows when one is stopped."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.config import Settings
from tests.library.legacy import LegacyLibrary

_ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1024 * 1024


class Imports:
    """`python -m app import --copy` of one library into one database and one folder."""

    def __init__(self, folder: Path, legacy: LegacyLibrary, database_url: str, **variables: str) -> None:
        self.media = folder / "data" / "media"
        self._folder = folder
        self._command = [sys.executable, "-m", "app", "import", str(legacy.root), "--copy"]
        self._variables = {"DATABASE_URL": database_url, "DATA_DIR": str(folder / "data"), "PYTHONPATH": str(_ROOT)}
        self._variables |= variables

    @contextmanager
    def start(self, before: Callable[[], None] | None = None) -> Iterator[subprocess.Popen[str]]:
        ours = {name.upper() for name in Settings.model_fields}
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=kept | self._variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def finish(self, before: Callable[[], None] | None = None) -> tuple[int, str, str]:
        """Run one to its end and return exit status, output and errors."""
        with self.start(before) as process:
            output, errors = process.communicate(timeout=120)
            return process.returncode, output, errors

    def wait_for_a_draft(self, size: int) -> None:
        """Wait until some of a film, and not all of it, has been copied."""
        deadline = time.monotonic() + 60
        while not any(each.stat().st_size > size for each in self.drafts()):
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def drafts(self) -> list[Path]:
        return list((self.media / ".incoming").glob("*"))

    def files(self) -> set[Path]:
        return {path for path in self.media.rglob("*") if path.is_file() and path not in self.drafts()}


def add_long_film(legacy: LegacyLibrary, video: str, megabytes: int) -> Path:
    """A film of some size: the rest of it is an atom that players pass over."""
    path = legacy.add_video(f"{video}.mp4")
    noise = os.urandom(MEGABYTE)
    with path.open("ab") as file:
        file.write((8 + megabytes * MEGABYTE).to_bytes(4, "big") + b"free")
        for number in range(megabytes):
            file.write(number.to_bytes(4, "big") + noise[4:])
    return path
