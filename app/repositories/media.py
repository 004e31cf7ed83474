"""Where the files of videos and of clips lie."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.database import Connection
from app.database.queries import fetch_one, fetch_value


@dataclass(frozen=True, slots=True)
class ClipPlace:
    """What there is of a moment's clip: the moment at all, and the URL of a file."""

    has_moment: bool
    url: str | None


class MediaRepository:
    """URLs of stored files, each by what an address names."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def get_video_urls(self, identifiers: list[str]) -> dict[str, tuple[str, ...]]:
        """Return the URLs of those videos that there are, by identifier: the copy that browsers play comes first."""
        cursor = await self._conn.execute(
            """
            SELECT identifier, cloud_url, playable_url
            FROM videos LEFT JOIN library.video_files ON video_id = videos.id AND video_files.source_url = cloud_url
            WHERE identifier = ANY (%(identifiers)s)
            """,
            {"identifiers": identifiers},
        )
        return {
            identifier: (original,) if playable is None else (playable, original)
            for identifier, original, playable in await cursor.fetchall()
        }

    async def get_clip_place(self, video: str, moment: str) -> ClipPlace | None:
        """Return None where there is no such video."""
        return await fetch_one(
            self._conn,
            ClipPlace,
            """
            SELECT moments.id IS NOT NULL, clips.cloud_url
            FROM videos
            LEFT JOIN moments ON moments.video_id = videos.id AND moments.identifier = %(moment)s
            LEFT JOIN clips ON clips.moment_id = moments.id
            WHERE videos.identifier = %(video)s
            """,
            {"video": video, "moment": moment},
        )

    async def find_clip_url(self, videos: Sequence[str], clip: str, endings: Sequence[str]) -> str | None:
        """Return the URL of a clip of one of `videos`: the one whose video and moment make up `clip`, joined by `_`.

        Where there is none, one whose URL has one of `endings`.
        """
        return await fetch_value(
            self._conn,
            """
            SELECT clips.cloud_url
            FROM videos
            JOIN clips ON clips.video_id = videos.id
            JOIN moments ON moments.id = clips.moment_id
            CROSS JOIN LATERAL (SELECT videos.identifier || '_' || moments.identifier = %(clip)s) AS named (exactly)
            WHERE videos.identifier = ANY (%(videos)s) AND (named.exactly OR EXISTS (
                SELECT FROM unnest(%(endings)s::text[]) AS ending
                WHERE right(clips.cloud_url, length(ending)) = ending
            ))
            ORDER BY named.exactly DESC, clips.id
            LIMIT 1
            """,
            {"videos": list(videos), "clip": clip, "endings": list(endings)},
        )
