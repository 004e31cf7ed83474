"""What was made of a video."""

from app.core.errors import VideoNotFound
from app.database import Connection
from app.repositories.lineage import LineageRepository


async def read_lineage(conn: Connection, identifier: str) -> bytes:
    """Return everything that was made of a video, each row once, as a JSON document. Raises `VideoNotFound`."""
    document = await LineageRepository(conn).read_lineage(identifier)
    if document is None:
        raise VideoNotFound
    return document
