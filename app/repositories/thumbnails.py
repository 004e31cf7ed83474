"""SQL over `thumbnails`."""

from collections.abc import Iterable
from typing import Any, TypedDict, Unpack

from psycopg import sql
from psycopg.rows import args_row

from app.database import Connection
from app.models import Thumbnail
from app.repositories.statements import copy_rows, set_clause

COLUMNS = "id, video_id, clip_id, cloud_url, file_size_kb, created_at"


class _Details(TypedDict, total=False):
    video_id: int | None
    clip_id: int | None
    file_size_kb: int | None


class ThumbnailChanges(TypedDict, total=False):
    """What may change in a thumbnail."""

    cloud_url: str
    file_size_kb: int | None


class NewThumbnail(_Details):
    """What a new thumbnail is made of: `cloud_url`, and either `video_id` or `clip_id`."""

    cloud_url: str


_UNSET: dict[str, Any] = dict.fromkeys(_Details.__annotations__)


class ThumbnailRepository:
    """Thumbnails, at most one for each video and for each clip."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def create(self, **thumbnail: Unpack[NewThumbnail]) -> Thumbnail:
        """Insert a thumbnail.

        Raises `UniqueViolation` of `idx_thumbnails_video_id` or `idx_thumbnails_clip_id` where its owner has one, and
        `CheckViolation` of `thumbnails_owner_check` where it has no owner or two.
        """
        async with self._conn.cursor(row_factory=args_row(Thumbnail)) as cursor:
            await cursor.execute(
                f"""
                INSERT INTO thumbnails (video_id, clip_id, cloud_url, file_size_kb)
                VALUES (%(video_id)s, %(clip_id)s, %(cloud_url)s, %(file_size_kb)s)
                RETURNING {COLUMNS}
                """,
                _UNSET | thumbnail,
            )
            return await anext(cursor)

    async def copy(self, thumbnails: Iterable[NewThumbnail]) -> int:
        """Insert many thumbnails through COPY and return how many."""
        return await copy_rows(self._conn, "thumbnails", ("cloud_url", *_UNSET), thumbnails)

    async def get(self, thumbnail_id: int) -> Thumbnail | None:
        async with self._conn.cursor(row_factory=args_row(Thumbnail)) as cursor:
            await cursor.execute(f"SELECT {COLUMNS} FROM thumbnails WHERE id = %(id)s", {"id": thumbnail_id})
            return await cursor.fetchone()

    async def get_by_video(self, video_id: int) -> Thumbnail | None:
        async with self._conn.cursor(row_factory=args_row(Thumbnail)) as cursor:
            await cursor.execute(
                f"SELECT {COLUMNS} FROM thumbnails WHERE video_id = %(video_id)s", {"video_id": video_id}
            )
            return await cursor.fetchone()

    async def get_by_clip(self, clip_id: int) -> Thumbnail | None:
        async with self._conn.cursor(row_factory=args_row(Thumbnail)) as cursor:
            await cursor.execute(f"SELECT {COLUMNS} FROM thumbnails WHERE clip_id = %(clip_id)s", {"clip_id": clip_id})
            return await cursor.fetchone()

    async def list_by_video(self, video_id: int) -> list[Thumbnail]:
        """Return the video's thumbnail and those of its clips, ordered by id."""
        async with self._conn.cursor(row_factory=args_row(Thumbnail)) as cursor:
            await cursor.execute(  # two reads in one: with OR, no index would serve
                f"""
                SELECT {COLUMNS} FROM thumbnails WHERE video_id = %(video_id)s
                UNION ALL
                SELECT {COLUMNS} FROM thumbnails
                WHERE clip_id IN (SELECT clips.id FROM clips WHERE clips.video_id = %(video_id)s)
                ORDER BY id
                """,
                {"video_id": video_id},
            )
            return await cursor.fetchall()

    async def list_page(self, limit: int, after: int = 0) -> list[Thumbnail]:
        """Return at most `limit` thumbnails whose id is above `after`, ordered by id."""
        async with self._conn.cursor(row_factory=args_row(Thumbnail)) as cursor:
            await cursor.execute(
                f"SELECT {COLUMNS} FROM thumbnails WHERE id > %(after)s ORDER BY id LIMIT %(limit)s",
                {"after": after, "limit": limit},
            )
            return await cursor.fetchall()

    async def update(self, thumbnail_id: int, **changes: Unpack[ThumbnailChanges]) -> Thumbnail | None:
        """Change the given columns and return the new row, or None where there is no such thumbnail."""
        if not changes:
            return await self.get(thumbnail_id)
        async with self._conn.cursor(row_factory=args_row(Thumbnail)) as cursor:
            await cursor.execute(
                sql.SQL("UPDATE thumbnails SET {} WHERE id = %(id)s RETURNING " + COLUMNS).format(set_clause(changes)),
                {**changes, "id": thumbnail_id},
            )
            return await cursor.fetchone()

    async def delete(self, thumbnail_id: int) -> bool:
        """Delete the thumbnail; False where there is none."""
        cursor = await self._conn.execute("DELETE FROM thumbnails WHERE id = %(id)s", {"id": thumbnail_id})
        return cursor.rowcount == 1

    async def count(self) -> int:
        cursor = await self._conn.execute("SELECT count(*) FROM thumbnails")
        (count,) = await anext(cursor)
        return int(count)
