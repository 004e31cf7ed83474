"""SQL over `thumbnails`."""

from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

from app.database.queries import Repository, fetch_one, insert_row, list_columns, update_row
from app.models import Thumbnail

_SELECT = f"SELECT {list_columns(Thumbnail)} FROM thumbnails"


class ThumbnailChanges(TypedDict, total=False):
    """The columns of a thumbnail that may change."""

    cloud_url: str
    file_size_kb: int | None


class NewThumbnail(ThumbnailChanges, total=False):
    """The columns of a new thumbnail: `cloud_url`, and either `video_id` or `clip_id`."""

    video_id: int | None
    clip_id: int | None


@dataclass(frozen=True, slots=True)
class ThumbnailOwner:
    """A video or a clip: the file that its thumbnail is made from, and the URL of the thumbnail that it has."""

    kind: Literal["video", "clip"]
    id: int
    name: str  # `video` or `video/moment`
    file_url: str
    thumbnail_url: str | None


class ThumbnailRepository(Repository):
    """Thumbnails, at most one for each video and for each clip."""

    async def create(self, **thumbnail: Unpack[NewThumbnail]) -> Thumbnail:
        return await insert_row(self._conn, Thumbnail, "thumbnails", thumbnail)

    async def get(self, thumbnail_id: int) -> Thumbnail | None:
        return await fetch_one(self._conn, Thumbnail, _SELECT + " WHERE id = %(id)s", {"id": thumbnail_id})

    async def get_by_video(self, video_id: int) -> Thumbnail | None:
        return await fetch_one(self._conn, Thumbnail, _SELECT + " WHERE video_id = %(id)s", {"id": video_id})

    async def get_by_clip(self, clip_id: int) -> Thumbnail | None:
        return await fetch_one(self._conn, Thumbnail, _SELECT + " WHERE clip_id = %(clip_id)s", {"clip_id": clip_id})

    async def get_video_as_thumbnail_owner(self, video_identifier: str) -> ThumbnailOwner | None:
        return await fetch_one(
            self._conn,
            ThumbnailOwner,
            """
            SELECT 'video', videos.id, videos.identifier, videos.cloud_url, thumbnails.cloud_url
            FROM videos LEFT JOIN thumbnails ON thumbnails.video_id = videos.id
            WHERE videos.identifier = %(identifier)s
            """,
            {"identifier": video_identifier},
        )

    async def get_clip_as_thumbnail_owner(
        self, video_identifier: str, moment_identifier: str
    ) -> tuple[bool, ThumbnailOwner | None] | None:
        """Return whether the video has the moment, and the moment's clip; None where the video does not exist."""
        cursor = await self._conn.execute(
            """
            SELECT moments.id IS NOT NULL, clips.id, clips.cloud_url, thumbnails.cloud_url
            FROM videos
            LEFT JOIN moments ON moments.video_id = videos.id AND moments.identifier = %(moment)s
            LEFT JOIN clips ON clips.moment_id = moments.id
            LEFT JOIN thumbnails ON thumbnails.clip_id = clips.id
            WHERE videos.identifier = %(video)s
            """,
            {"video": video_identifier, "moment": moment_identifier},
        )
        row = await cursor.fetchone()
        if row is None:
            return None
        has_moment, clip_id, *urls = row
        return has_moment, None if clip_id is None else ThumbnailOwner(
            "clip", clip_id, f"{video_identifier}/{moment_identifier}", *urls
        )

    async def replace_thumbnail(self, owner: ThumbnailOwner, cloud_url: str, file_size_kb: int) -> str | None:
        """Store a thumbnail unless the owner's has changed since it was read; return the stored URL, if any."""
        cursor = await self._conn.execute(
            f"""
            INSERT INTO thumbnails ({owner.kind}_id, cloud_url, file_size_kb)
            SELECT id, %(url)s, %(size)s FROM {owner.kind}s WHERE id = %(id)s FOR KEY SHARE
            ON CONFLICT ({owner.kind}_id) WHERE {owner.kind}_id IS NOT NULL DO UPDATE
            SET cloud_url = excluded.cloud_url, file_size_kb = excluded.file_size_kb, created_at = excluded.created_at
            WHERE thumbnails.cloud_url = %(found)s
            RETURNING cloud_url
            """,
            {"url": cloud_url, "size": file_size_kb, "id": owner.id, "found": owner.thumbnail_url},
        )
        return cloud_url if await cursor.fetchone() else await self.get_thumbnail_url(owner)

    async def get_thumbnail_url(self, owner: ThumbnailOwner) -> str | None:
        get = self.get_by_video if owner.kind == "video" else self.get_by_clip
        thumbnail = await get(owner.id)
        return thumbnail.cloud_url if thumbnail else None

    async def update(self, thumbnail_id: int, **changes: Unpack[ThumbnailChanges]) -> Thumbnail | None:
        return await update_row(self._conn, Thumbnail, "thumbnails", thumbnail_id, changes)

    async def delete(self, thumbnail_id: int) -> bool:
        cursor = await self._conn.execute("DELETE FROM thumbnails WHERE id = %(id)s", {"id": thumbnail_id})
        return cursor.rowcount == 1
