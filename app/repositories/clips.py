"""SQL over `clips`."""

from collections.abc import Iterable
from typing import Any, TypedDict, Unpack

from app.database.queries import Repository, copy_rows, fetch_all, fetch_one, insert_row, list_columns, update_row
from app.models import Clip

_SELECT = f"SELECT {list_columns(Clip)} FROM clips"


class _OptionalClipColumns(TypedDict, total=False):
    padding_left: float
    padding_right: float
    file_size_kb: int | None
    format: str | None
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None


class ClipChanges(_OptionalClipColumns, total=False):
    """The columns of a clip that may change; times and paddings are seconds."""

    cloud_url: str
    start_time: float
    end_time: float


class NewClip(_OptionalClipColumns):
    """The columns of a new clip; times and paddings are seconds; the times include the padding."""

    moment_id: int
    video_id: int
    cloud_url: str
    start_time: float
    end_time: float


_DEFAULTS: dict[str, Any] = dict.fromkeys(_OptionalClipColumns.__annotations__) | {
    "padding_left": 0.0,
    "padding_right": 0.0,
}


class ClipRepository(Repository):
    """Clips, at most one for each moment."""

    async def create(self, **clip: Unpack[NewClip]) -> Clip:
        return await insert_row(self._conn, Clip, "clips", clip)

    async def insert_many(self, clips: Iterable[NewClip]) -> int:
        columns = ("moment_id", "video_id", "cloud_url", "start_time", "end_time", *_DEFAULTS)
        return await copy_rows(self._conn, "clips", columns, ({**_DEFAULTS, **clip} for clip in clips))

    async def get(self, clip_id: int) -> Clip | None:
        return await fetch_one(self._conn, Clip, _SELECT + " WHERE id = %(id)s", {"id": clip_id})

    async def get_by_moment(self, moment_id: int) -> Clip | None:
        return await fetch_one(self._conn, Clip, _SELECT + " WHERE moment_id = %(moment_id)s", {"moment_id": moment_id})

    async def list_by_video(self, video_id: int) -> list[Clip]:
        return await fetch_all(self._conn, Clip, _SELECT + " WHERE video_id = %(id)s ORDER BY id", {"id": video_id})

    async def update(self, clip_id: int, **changes: Unpack[ClipChanges]) -> Clip | None:
        return await update_row(self._conn, Clip, "clips", clip_id, changes)

    async def delete(self, clip_id: int) -> bool:
        cursor = await self._conn.execute("DELETE FROM clips WHERE id = %(id)s", {"id": clip_id})
        return cursor.rowcount == 1
