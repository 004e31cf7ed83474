"""`python -m app import --copy` as a process of its own, for what only shows when one is stopped."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.config import Settings
from tests.importer.legacy import LegacyLibrary

_ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1024 * 1024


# The command, which copies no further than some megabytes of each video as long as the file that is named is there.
_HALTED = """
import sys, time
from pathlib import Path
from app.cli.command_line import main
from app.storage.folder_upload import FolderUpload

halt, chunks, check = Path(sys.argv.pop(1)), int(sys.argv.pop(1)), FolderUpload._raise_if_stopping

def check_and_wait(self):
    self.chunks = getattr(self, "chunks", 0) + 1
    while self.chunks > chunks and halt.exists():
        check(self)
        time.sleep(0.01)
    check(self)

FolderUpload._raise_if_stopping = check_and_wait
sys.exit(main())
"""


class Imports:
    """`python -m app import --copy` of one library into one database and one folder."""

    def __init__(self, folder: Path, legacy: LegacyLibrary, database_url: str, **variables: str) -> None:
        self.media = folder / "data" / "media"
        self._folder = folder
        self._halt = folder / "halt"
        self._words = ["import", str(legacy.root), "--copy"]
        self._variables = {"DATABASE_URL": database_url, "DATA_DIR": str(folder / "data"), "PYTHONPATH": str(_ROOT)}
        self._variables |= variables

    @contextmanager
    def start(
        self, before: Callable[[], None] | None = None, halt_after: int | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """Run one; with `halt_after` it stands still after so many megabytes of each video, until `go_on`."""
        program = ["-m", "app"]
        if halt_after is not None:
            self._halt.touch()
            program = ["-c", _HALTED, str(self._halt), str(halt_after)]
        ours = {name.upper() for name in Settings.model_fields}
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        process = subprocess.Popen(
            [sys.executable, *program, *self._words],
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
            output, errors = process.communicate(timeout=300)
            return process.returncode, output, errors

    def wait_for_a_draft(self, size: int) -> None:
        """Wait until so much of a video has been copied."""
        deadline = time.monotonic() + 60
        while not any(each.stat().st_size >= size for each in self.drafts()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def go_on(self) -> None:
        self._halt.unlink()

    def drafts(self) -> list[Path]:
        return list((self.media / ".incoming").glob("*"))

    def files(self) -> set[Path]:
        return {path for path in self.media.rglob("*") if path.is_file() and path not in self.drafts()}


def add_long_video_file(legacy: LegacyLibrary, video: str, megabytes: int) -> Path:
    """A video of some size: the rest of it is an atom that players pass over."""
    path = legacy.add_video(f"{video}.mp4")
    noise = os.urandom(MEGABYTE)
    with path.open("ab") as file:
        file.write((8 + megabytes * MEGABYTE).to_bytes(4, "big") + b"free")
        for number in range(megabytes):
            file.write(number.to_bytes(4, "big") + noise[4:])
    return path
