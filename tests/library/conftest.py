"""A library to fill and a database to import it into."""

from pathlib import Path

import pytest

from tests.library.importer import Importer
from tests.library.legacy import LegacyLibrary


@pytest.fixture
def legacy(tmp_path: Path) -> LegacyLibrary:
    return LegacyLibrary(tmp_path / "static")


@pytest.fixture
def importer(own_database_url: str) -> Importer:
    return Importer(own_database_url)
