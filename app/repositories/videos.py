"""SQL over `videos`, and the columns that a list of videos shows."""

import asyncio
from dataclasses import dataclass
from posixpath import splitext
from typing import LiteralString, NamedTuple, TypedDict, Unpack

from psycopg import sql

from app.database.queries import (
    Repository,
    exists,
    fetch_all,
    fetch_one,
    fetch_value,
    insert_row,
    list_columns,
    lock_in_transaction,
    update_row,
)
from app.models import Video
from app.models.videos import display_title

_SELECT = f"SELECT {list_columns(Video)} FROM videos"
_BY_IDENTIFIER = _SELECT + " WHERE identifier = %(identifier)s"


class VideoChanges(TypedDict, total=False):
    """The columns of a video that may change."""

    source_url: str | None
    cloud_url: str
    title: str | None
    duration_seconds: float | None
    file_size_kb: int | None
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None
    frame_rate: float | None


class NewVideo(VideoChanges):
    """The columns of a new video: `identifier` and `cloud_url` are required."""

    identifier: str


@dataclass(frozen=True, slots=True)
class VideoWithSource:
    """A video with a source URL; `has_file` is false until its first download has succeeded."""

    id: int
    identifier: str
    source_url: str
    cloud_url: str
    has_file: bool


class VideoCard(NamedTuple):
    """A video as a list shows it; `may_have_file` is false where no row or URL points to a file."""

    identifier: str
    cloud_url: str
    stored_title: str | None
    has_thumbnail: bool
    has_transcript: bool
    may_have_file: bool

    @property
    def filename(self) -> str:
        return self.identifier + splitext(self.cloud_url)[1]

    @property
    def title(self) -> str:
        return display_title(self.identifier, self.stored_title)


@dataclass(frozen=True, slots=True)
class DetailedVideoCard:
    """A video card with the state of its file: whether it ends early, and its playable copy."""

    card: VideoCard
    duration_seconds: float | None
    ends_early: bool
    declared_seconds: float | None
    copy_status: str | None
    copy_reason: str | None


_CARD_QUERY = """
    SELECT videos.identifier, videos.cloud_url, videos.title, thumbnails.id IS NOT NULL,
           transcripts.id IS NOT NULL,
           coalesce(videos.duration_seconds::text, videos.video_codec, videos.audio_codec) IS NOT NULL
           OR videos.cloud_url NOT LIKE 'file:%%'
           OR videos.file_size_kb IS NOT NULL AND videos.source_url IS NULL{more_columns}
    FROM videos
    LEFT JOIN thumbnails ON thumbnails.video_id = videos.id
    LEFT JOIN transcripts ON transcripts.video_id = videos.id
    {more_tables}
    """


# Equal in two statements only if no transaction that changed the list was committed between them: counts start anew in
# a table that was truncated or restored, and a standby that was promoted may lack the latest commits. No row in a
# transaction that has written, which is counted only once.
_LIST_VERSION = """
    SELECT concat_ws(' ', sum(transactions), pg_relation_filenode('library.video_list_changes'),
                     pg_postmaster_start_time())
    FROM library.video_list_changes
    HAVING pg_current_xact_id_if_assigned() IS NULL
"""

_LISTED_CARD_QUERY = _CARD_QUERY.format(more_columns=f", ({_LIST_VERSION})", more_tables="")


_DETAILED_CARD_QUERY = _CARD_QUERY.format(
    more_columns=""", duration_seconds, coalesce(ends_early, false), declared_seconds,
           nullif(status, 'unneeded'), reason""",
    more_tables="""
    LEFT JOIN library.video_files
        ON video_files.video_id = videos.id AND video_files.source_url = videos.cloud_url
    """,
)


# Rows that are turned into objects at a time, so that other requests are served in between.
_ROWS_AT_A_TIME = 2000

# Lists leave out videos whose first download has not succeeded. One with a size was downloaded by a worker of an
# earlier version, which does not maintain `pending_videos`.
_IS_COMPLETE = "(videos.file_size_kb IS NOT NULL OR videos.id NOT IN (SELECT video_id FROM pipeline.pending_videos))"


def _where_listed(after: str) -> LiteralString:
    """Return the end of a query for the listed videos after an identifier, in order.

    The first ones are read without a condition: PostgreSQL plans one with a parameter for a small part of the table,
    which makes reading a whole library twice as slow.
    """
    return f"WHERE {_IS_COMPLETE}{' AND videos.identifier > %(after)s' if after else ''} ORDER BY videos.identifier"


class VideoRepository(Repository):
    """Videos by id and by identifier, which is part of their URLs."""

    async def create(self, **video: Unpack[NewVideo]) -> Video:
        return await insert_row(self._conn, Video, "videos", video)

    async def insert_pending(self, identifier: str, source_url: str, cloud_url: str, title: str | None = None) -> bool:
        """Insert a video whose file is not stored yet, which lists omit; False where the identifier is taken."""
        cursor = await self._conn.execute(
            """
            WITH added AS (
                INSERT INTO videos (identifier, source_url, cloud_url, title)
                VALUES (%(identifier)s, %(source_url)s, %(cloud_url)s, %(title)s)
                ON CONFLICT (identifier) DO NOTHING
                RETURNING id
            )
            INSERT INTO pipeline.pending_videos (video_id) SELECT id FROM added
            """,
            {"identifier": identifier, "source_url": source_url, "cloud_url": cloud_url, "title": title},
        )
        return cursor.rowcount == 1

    async def mark_download_complete(self, video_id: int) -> None:
        await self._conn.execute("DELETE FROM pipeline.pending_videos WHERE video_id = %(id)s", {"id": video_id})

    async def list_videos_of_source(self, urls: list[str], identifier: str) -> list[VideoWithSource]:
        """Return videos with one of the source URLs, or with a source and the identifier or `identifier-…`."""
        return await fetch_all(
            self._conn,
            VideoWithSource,
            """
            SELECT id, identifier, source_url, cloud_url, file_size_kb IS NOT NULL
            FROM videos
            WHERE source_url IS NOT NULL
              AND (source_url = ANY (%(urls)s) OR identifier = %(name)s
                   OR (identifier > %(name)s || '-' AND identifier < %(name)s || '.'))
            """,
            {"urls": urls, "name": identifier},
        )

    async def lock_source_url(self, url: str) -> None:
        await lock_in_transaction(self._conn, f"sources:{url}")

    async def list_taken_identifiers(self, base_identifier: str) -> set[str]:
        """Return the identifiers of videos that are the base, or the base with `-…` behind."""
        cursor = await self._conn.execute(
            """
            SELECT identifier FROM videos
            WHERE identifier = %(base)s OR (identifier > %(base)s || '-' AND identifier < %(base)s || '.')
            """,
            {"base": base_identifier},
        )
        return {identifier for (identifier,) in await cursor.fetchall()}

    async def get(self, video_id: int) -> Video | None:
        return await fetch_one(self._conn, Video, _SELECT + " WHERE id = %(id)s", {"id": video_id})

    async def get_by_identifier(self, identifier: str) -> Video | None:
        return await fetch_one(self._conn, Video, _BY_IDENTIFIER, {"identifier": identifier})

    async def get_end_seconds(self, identifier: str) -> float | None:
        """Return the duration of a video; where its file was never probed, the end of its transcript."""
        return await fetch_value(
            self._conn,
            "SELECT videos_end(videos) FROM videos WHERE identifier = %(identifier)s",
            {"identifier": identifier},
        )

    async def lock_video(self, identifier: str) -> Video | None:
        return await fetch_one(
            self._conn,
            Video,
            _BY_IDENTIFIER + " FOR NO KEY UPDATE",
            {"identifier": identifier},
        )

    async def lock_video_for_deletion(self, identifier: str) -> Video | None:
        return await fetch_one(self._conn, Video, _BY_IDENTIFIER + " FOR UPDATE", {"identifier": identifier})

    async def lock_video_identifier(self, identifier: str) -> None:
        """Lock an identifier, also one that no video has, until the end of the transaction."""
        await lock_in_transaction(self._conn, f"videos:{identifier}")

    async def is_file_referenced(self, identifier: str, url: str) -> bool:
        """Return whether a row of the video has the URL, or a row that a run has set aside and may restore."""
        return await exists(
            self._conn,
            """
            SELECT FROM videos
            WHERE identifier = %(identifier)s
              AND %(url)s IN (
                  SELECT videos.cloud_url
                  UNION ALL
                  SELECT playable_url FROM library.video_files WHERE video_id = videos.id
                  UNION ALL
                  SELECT clips.cloud_url FROM clips WHERE clips.video_id = videos.id
                  UNION ALL
                  SELECT thumbnails.cloud_url FROM thumbnails WHERE thumbnails.video_id = videos.id
                  UNION ALL
                  SELECT thumbnails.cloud_url FROM clips JOIN thumbnails ON thumbnails.clip_id = clips.id
                  WHERE clips.video_id = videos.id
                  UNION ALL
                  SELECT file ->> 'cloud_url'
                  FROM pipeline_history AS history JOIN pipeline.replaced ON run_id = history.id
                  CROSS JOIN LATERAL jsonb_array_elements(clips || thumbnails) AS file
                  WHERE history.video_id = videos.id
              )
            """,
            {"identifier": identifier, "url": url},
        )

    async def update(self, video_id: int, **changes: Unpack[VideoChanges]) -> Video | None:
        return await update_row(self._conn, Video, "videos", video_id, changes)

    async def delete(self, video_id: int) -> bool:
        cursor = await self._conn.execute("DELETE FROM videos WHERE id = %(id)s", {"id": video_id})
        return cursor.rowcount == 1

    async def count(self) -> int:
        return int(await fetch_value(self._conn, "SELECT count(*) FROM videos") or 0)

    async def get_list_version(self) -> str | None:
        """Return a text that changes with the list of all videos; None in a transaction that has written."""
        return await fetch_value(self._conn, _LIST_VERSION)

    async def list_cards(self, limit: int | None = None, after: str = "") -> tuple[str | None, list[VideoCard]]:
        """Return the version of the list, None for no videos, and its videos after an identifier: one statement."""
        # A literal limit: PostgreSQL plans a parameter for a small part of the table.
        query = sql.SQL(_LISTED_CARD_QUERY + _where_listed(after) + " LIMIT {}").format(sql.Literal(limit))
        cursor = await self._conn.execute(query, {"after": after})
        version: str | None = None
        cards: list[VideoCard] = []
        while rows := await cursor.fetchmany(_ROWS_AT_A_TIME):
            version = rows[0][-1]
            cards += [VideoCard._make(columns) for *columns, _ in rows]
            await asyncio.sleep(0)
        return version, cards

    async def get_cards(self, identifiers: list[str]) -> dict[str, DetailedVideoCard]:
        cursor = await self._conn.execute(
            _DETAILED_CARD_QUERY + "WHERE videos.identifier = ANY (%(identifiers)s)", {"identifiers": identifiers}
        )
        count = len(VideoCard._fields)
        return {
            row[0]: DetailedVideoCard(VideoCard._make(row[:count]), *row[count:]) for row in await cursor.fetchall()
        }
