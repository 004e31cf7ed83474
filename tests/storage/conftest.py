"""Storage in folders, and in a bucket of a real emulator."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.core.config import Settings
from app.storage import Storage, open_storage
from tests.storage.emulator import Emulator, write_credentials
from tests.storage.homes import open_files


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    """Files in `tmp_path/media`, and an imported library in `tmp_path/library`."""
    (tmp_path / "library").mkdir()
    storage = open_files(tmp_path)
    yield storage
    await storage.aclose()


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("buckets")) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a throw-away key that signs."""
    return write_credentials(tmp_path_factory.mktemp("credentials") / "key.json")


@pytest.fixture
def bucket(emulator: Emulator, credentials: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket; what the test opens finds the emulator and the credentials."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials))
    return emulator.create_bucket()


@pytest.fixture
async def cloud(bucket: str, tmp_path: Path) -> AsyncIterator[Storage]:
    """Storage in the bucket, under a prefix."""
    storage = open_storage(Settings(storage_url=f"gs://{bucket}/media", data_dir=tmp_path / "data"))
    yield storage
    await storage.aclose()
