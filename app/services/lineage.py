"""What was made of a video."""

from app.core.errors import VideoNotFound
from app.database import Connection
from app.repositories.lineage import LineageRepository
from app.services.identifiers import findable


async def read_lineage(conn: Connection, identifier: str) -> bytes:
    """Return everything that was made of a video, each row once, as a JSON document. Raises `VideoNotFound`."""
    document = await LineageRepository(conn).read_lineage(findable(identifier))
    if document is None:
        raise VideoNotFound
    return document
