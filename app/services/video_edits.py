"""Correcting what is said of a video."""

from app.core.errors import VideoNotFound
from app.core.masking import mask_secrets
from app.core.text import clean_line
from app.database import Connection
from app.repositories import VideoRepository
from app.repositories.videos import VideoChanges
from app.services.identifiers import findable
from app.services.video_details import check_source_url, check_title


async def change_video(conn: Connection, identifier: str, changes: VideoChanges) -> None:
    """Change title or source_url; None forgets it. Raises `VideoNotFound` and `InvalidInput`."""
    if (title := changes.get("title")) is not None:
        check_title(title)
        changes["title"] = clean_line(title)
    if (source_url := changes.get("source_url")) is not None:
        check_source_url(source_url)
    async with conn.transaction():
        videos = VideoRepository(conn)
        video = await videos.lock(findable(identifier))
        if video is None:
            raise VideoNotFound
        if source_url is not None and source_url == mask_secrets(video.source_url or ""):
            changes.pop("source_url")  # sent back as it was shown
        if not changes:
            return
        await videos.update(video.id, **changes)
