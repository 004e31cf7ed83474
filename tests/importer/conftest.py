"""A library to fill and a database to import it into."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.importer.importer import Importer
from tests.importer.legacy import LegacyLibrary


@pytest.fixture
def legacy(tmp_path: Path) -> LegacyLibrary:
    return LegacyLibrary(tmp_path / "static")


@pytest.fixture
async def importer(own_database_url: str, tmp_path: Path) -> AsyncIterator[Importer]:
    importer = Importer(own_database_url, tmp_path / "data")
    yield importer
    await importer.storage.aclose()
