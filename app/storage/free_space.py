"""Free space of disks, which is looked at before a large file is begun: nothing is half written, and no disk filled."""

import shutil
from pathlib import Path

from app.core.errors import StorageFull

# What stays free for everything else of the machine: a share of the disk, and of a large one so many bytes.
_RESERVE_BYTES, _RESERVE_SHARE = 1024**3, 0.05
_UNITS = ("bytes", "kB", "MB", "GB")


def check_free_space(folder: Path, needed_bytes: float, purpose: str) -> None:
    """Raise `StorageFull` where a file of `needed_bytes` does not fit on the disk of a folder; it blocks for a moment.

    The folder may be still to come. `purpose` is what the file is, as a sentence names it ("the audio of the video").
    A disk that does not say how much is free is written to all the same.
    """
    try:
        free, total = measure_disk(folder)
    except OSError:
        return
    available = max(free - min(_RESERVE_BYTES, total * _RESERVE_SHARE), 0.0)
    if needed_bytes > available:
        raise StorageFull(
            f"There is no room for {purpose}: {_describe(needed_bytes)} are needed, "
            f"and {_describe(available)} of the disk may be used"
        )


def measure_disk(folder: Path) -> tuple[int, int]:
    """Return the free bytes and all bytes of the disk that a folder is on. Raises `OSError`."""
    existing = next((each for each in (folder, *folder.absolute().parents) if each.exists()), folder)
    usage = shutil.disk_usage(existing)
    return usage.free, usage.total


def _describe(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} {_UNITS[-1]}"
