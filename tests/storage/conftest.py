"""Storage in folders, and in a bucket of a real emulator."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.config import Settings
from app.storage import Storage, open_storage
from tests.storage.stores import open_files


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    """Files in `tmp_path/media`, and an imported library in `tmp_path/library`."""
    (tmp_path / "library").mkdir()
    storage = open_files(tmp_path)
    yield storage
    await storage.aclose()


@pytest.fixture
async def cloud(bucket: str, tmp_path: Path) -> AsyncIterator[Storage]:
    """Storage in the bucket, under a prefix."""
    storage = open_storage(Settings(storage_url=f"gs://{bucket}/media", data_dir=tmp_path / "data"))
    yield storage
    await storage.aclose()
