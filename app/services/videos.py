"""Videos as the frontend lists them."""

from collections.abc import AsyncIterator

from app.database import Connection
from app.repositories.videos import VideoCard, VideoRepository

# Rows read at once where a client asks for the whole library: other requests are served in between.
_BATCH = 2000


async def list_videos(conn: Connection, limit: int | None, after: str) -> list[VideoCard]:
    """Return at most `limit` videos behind the identifier `after`; all of them where `limit` is None."""
    views = VideoRepository(conn)
    if limit is not None:
        return await views.list_cards(limit, after)
    return [card async for batch in _batches(views, after) for card in batch]


async def _batches(views: VideoRepository, after: str) -> AsyncIterator[list[VideoCard]]:
    while True:
        batch = await views.list_cards(_BATCH, after)
        yield batch
        if len(batch) < _BATCH:
            return
        after = batch[-1].identifier
