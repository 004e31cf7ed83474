"""Running an import on a database of the test's own, and looking at what it left there."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from psycopg.rows import dict_row

from app.core.config import Settings
from app.database import Connection, open_async_connection
from app.importer.importing import ImportOptions, import_library
from app.importer.report import TABLES, ImportReport
from app.storage import open_storage
from tests.importer.legacy import LegacyLibrary


class Silence:
    """Progress that nobody watches."""

    def start_progress(self, video_count: int, total_bytes: int) -> None:
        pass

    def update_progress(self, report: ImportReport) -> None:
        pass

    def add_copied_bytes(self, size: int) -> None:
        pass

    def stop_progress(self) -> None:
        pass


class Importer:
    """Imports libraries into one database and one storage."""

    def __init__(self, url: str, data_dir: Path, storage_url: str | None = None) -> None:
        self.settings = Settings(database_url=url, data_dir=data_dir, storage_url=storage_url)
        self.storage = open_storage(self.settings)

    async def run(self, legacy: LegacyLibrary, **options: Any) -> dict[str, Any]:
        """Import and return the report."""
        how = ImportOptions(**options)
        report = await import_library(self.settings, self.storage, legacy.root, how, Silence())
        with report:
            return report.summarize_without_entries() | {"entries": list(report.read_entries())}

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with open_async_connection(self.settings) as conn:
            yield conn

    async def rows(self, table: str, order: str = "id") -> list[dict[str, Any]]:
        async with open_async_connection(self.settings) as conn, conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(f"SELECT * FROM {table} ORDER BY {order}")
            return await cursor.fetchall()

    async def row(self, table: str) -> dict[str, Any]:
        """Return the table's only row."""
        (row,) = await self.rows(table)
        return row

    async def everything(self) -> dict[str, list[dict[str, Any]]]:
        """Return every row of every table with its id and its times."""
        return {table: await self.rows(table) for table in TABLES}


def counts(report: dict[str, Any], kind: str) -> dict[str, int]:
    """Return how many rows of each table are `new`, `changed` or `unchanged`, without the zeros."""
    return {table: count[kind] for table, count in report["tables"].items() if count[kind]}


def entries(report: dict[str, Any], kind: str) -> Sequence[dict[str, Any]]:
    return [entry for entry in report["entries"] if entry["kind"] == kind]
