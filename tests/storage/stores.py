"""Factories of stores and files for tests."""

import asyncio
from pathlib import Path
from typing import Any

from app.core.config import Settings
from app.storage import Storage, open_storage


def open_files(folder: Path, **changes: Any) -> Storage:
    """Storage in `folder/media` that may also read `folder/library`."""
    values = {
        "storage_url": (folder / "media").as_uri(),
        "data_dir": folder / "data",
        "library_dirs": (folder / "library",),
    }
    return open_storage(Settings(**{**values, **changes}))


def make_file(path: Path, content: bytes = b"the bytes of a file") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


async def read_all(storage: Storage, url: str, start: int = 0, stop: int | None = None) -> bytes:
    async with storage.open_async(url) as file:
        return b"".join([chunk async for chunk in file.read(start, stop)])


async def is_copy(storage: Storage, url: str, source: Path) -> bool:
    return await read_all(storage, url) == await asyncio.to_thread(source.read_bytes)
