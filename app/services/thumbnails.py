"""The still pictures of videos."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from app.core.errors import ThumbnailNotFound
from app.database import Connection
from app.repositories.views import ViewRepository


async def find_thumbnail(conn: Connection, identifier: str) -> Path:
    """Return the local file of a video's thumbnail. Raises `ThumbnailNotFound`, also for one that lies elsewhere."""
    url = urlsplit(await ViewRepository(conn).get_thumbnail_url(identifier) or "")
    if url.scheme != "file":
        raise ThumbnailNotFound
    return Path(unquote(url.path))
