"""What was made of a video, and what was made with a prompt or a config."""

from pathlib import Path

from app.database import Connection

# Longer than a literal should be.
_LINEAGE = Path(__file__).with_name("lineage.sql").read_text("utf-8")


class LineageRepository:
    """Reads along the lineage from video to clip."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def read_lineage(self, identifier: str) -> bytes | None:
        """Return the JSON document of a video's lineage as PostgreSQL prints it, or None where there is no video."""
        cursor = await self._conn.execute(_LINEAGE, {"identifier": identifier}, binary=True)
        row = await cursor.fetchone()
        return row[0] if row else None
