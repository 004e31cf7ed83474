"""A file that arrives in the folder of a run, and goes on where it broke off."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from app.core.errors import StageFailed
from app.storage import check_free_space
from app.storage.os_errors import writing
from app.storage.workers import Workers

# Threads are told of so many bytes at a time.
_BUFFER_BYTES = 1024 * 1024
_disk = Workers("downloads", 4)


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose part a file is. A part goes on where another answer has the same origin, and `version` is not empty."""

    url: str
    version: str = ""
    total_bytes: int | None = None


class PartFile:
    """`path` holds the first `size` bytes of what `origin` says, which is noted beside it."""

    def __init__(self, path: Path, max_bytes: int, report: Callable[[int, int | None], None]) -> None:
        self.path = path
        self.origin = Origin("")
        self.size = 0
        self._note = path.with_name(f"{path.name}.json")
        self._max_bytes = max_bytes
        self._report = report
        self._buffer = bytearray()

    @property
    def arrived(self) -> int:
        """Bytes that have arrived, some of which are not written down yet."""
        return self.size + len(self._buffer)

    @property
    def is_whole(self) -> bool:
        return self.origin.total_bytes == self.size

    async def look(self, url: str) -> None:
        """Find what an earlier attempt has left of this URL."""
        await _disk.run_to_its_end(partial(self._look, url))

    async def begin(self, origin: Origin) -> None:
        """Begin anew with what comes from somewhere. Raises `StageFailed` where it is too large, and `StorageFull`."""
        self._check_size(origin.total_bytes or 0)
        self.origin, self.size = origin, 0
        self._buffer.clear()
        await _disk.run_to_its_end(self._begin)

    async def write(self, data: bytes) -> None:
        """Append what has arrived. Raises `StageFailed` where it is too much, and `StorageFull`."""
        self._check_size(self.arrived + len(data))
        self._buffer += data
        self._report(self.arrived, self.origin.total_bytes)
        if len(self._buffer) >= _BUFFER_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write down what has arrived so far. Raises `StorageFull`."""
        if self._buffer:
            await _disk.run_to_its_end(self._flush)

    async def discard(self) -> None:
        self.origin, self.size = Origin(""), 0
        self._buffer.clear()
        await _disk.run_to_its_end(self._discard)

    def _look(self, url: str) -> None:
        with suppress(OSError, ValueError, TypeError):
            origin, size = Origin(**json.loads(self._note.read_text("utf-8"))), self.path.stat().st_size
            if origin.url == _digest(url) and origin.version:
                self.origin, self.size = replace(origin, url=url), size

    def _begin(self) -> None:
        with writing():
            self.path.write_bytes(b"")  # what an earlier attempt has left is free again
            check_free_space(self.path.parent, self.origin.total_bytes or 0, "the video")
            noted = asdict(self.origin) | {"url": _digest(self.origin.url)}
            self._note.write_text(json.dumps(noted), "utf-8")

    def _flush(self) -> None:
        with writing(), self.path.open("r+b") as file:
            file.truncate(self.size)
            file.seek(self.size)
            file.write(self._buffer)
        self.size += len(self._buffer)
        self._buffer.clear()

    def _discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise StageFailed(f"A video may have at most {self._max_bytes} bytes, and the one at the URL has more")


def _digest(url: str) -> str:
    """Return what a note beside a file knows a URL by: the URL itself may be signed."""
    return hashlib.sha256(url.encode()).hexdigest()
