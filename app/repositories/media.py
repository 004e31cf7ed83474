"""URLs of video and clip files, and the playable copies that workers make of video files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.core.errors import RunLost
from app.database.queries import Repository, fetch_one, fetch_value
from app.models.videos import ClaimedVideoFile, PlayableCopyStatus


@dataclass(frozen=True, slots=True)
class ClipLocation:
    """Whether a moment exists, and the URL of its clip; None where none was cut."""

    has_moment: bool
    url: str | None


class MediaUrlRepository(Repository):
    """URLs of stored files by the identifiers of videos and moments."""

    async def get_video_file_urls(self, video_identifiers: list[str]) -> dict[str, tuple[str, ...]]:
        """Return by video identifier the file URLs of each video that exists, a playable copy before the original."""
        cursor = await self._conn.execute(
            """
            SELECT identifier, cloud_url, playable_url
            FROM videos LEFT JOIN library.video_files ON video_id = videos.id AND video_files.source_url = cloud_url
            WHERE identifier = ANY (%(identifiers)s)
            """,
            {"identifiers": video_identifiers},
        )
        return {
            identifier: (original,) if playable is None else (playable, original)
            for identifier, original, playable in await cursor.fetchall()
        }

    async def get_clip_location(self, video_identifier: str, moment_identifier: str) -> ClipLocation | None:
        return await fetch_one(
            self._conn,
            ClipLocation,
            """
            SELECT moments.id IS NOT NULL, clips.cloud_url
            FROM videos
            LEFT JOIN moments ON moments.video_id = videos.id AND moments.identifier = %(moment)s
            LEFT JOIN clips ON clips.moment_id = moments.id
            WHERE videos.identifier = %(video)s
            """,
            {"video": video_identifier, "moment": moment_identifier},
        )

    async def find_clip_url(
        self, video_identifiers: Sequence[str], clip_name: str, url_endings: Sequence[str]
    ) -> str | None:
        """Return the URL of the clip named `{video}_{moment}`, else of one whose URL has one of `url_endings`."""
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
            {"videos": list(video_identifiers), "clip": clip_name, "endings": list(url_endings)},
        )


class PlayableCopyRepository(Repository):
    """The queue of playable copies. A row about another file than the video's current one counts as missing."""

    async def store_early_end(self, video_id: int, source_url: str, declared_seconds: float | None) -> None:
        """Store that a file ends before the duration in its header, which browsers show: it needs a playable copy."""
        await self._conn.execute(
            """
            INSERT INTO library.video_files AS known (video_id, source_url, declared_seconds, ends_early)
            VALUES (%(video_id)s, %(source_url)s, %(declared_seconds)s, true)
            ON CONFLICT (video_id) DO UPDATE
            SET declared_seconds = excluded.declared_seconds, ends_early = true, source_url = excluded.source_url,
                status = CASE WHEN known.source_url = excluded.source_url
                                   AND (known.status <> 'unneeded' OR excluded.declared_seconds IS NULL)
                              THEN known.status ELSE 'waiting' END,
                playable_url = CASE WHEN known.source_url = excluded.source_url THEN known.playable_url END
            """,
            {"video_id": video_id, "source_url": source_url, "declared_seconds": declared_seconds},
        )

    async def get_early_end(self, video_id: int) -> tuple[bool, float | None]:
        """Return whether the video's file ends early, and the seconds that its header declares."""
        cursor = await self._conn.execute(
            """
            SELECT ends_early, declared_seconds
            FROM library.video_files AS known JOIN videos ON videos.id = known.video_id
            WHERE known.video_id = %(video_id)s AND known.source_url = videos.cloud_url
            """,
            {"video_id": video_id},
        )
        return await cursor.fetchone() or (False, None)

    async def claim_next_video_file(
        self, owner: str, stalled_after: float, max_attempts: int
    ) -> ClaimedVideoFile | None:
        """Claim a file that no worker inspected, or whose worker stalled, at most `max_attempts` times; else None."""
        return await fetch_one(
            self._conn,
            ClaimedVideoFile,
            """
            WITH clock AS (
                SELECT now() AT TIME ZONE 'utc' AS now,
                       now() AT TIME ZONE 'utc' - make_interval(secs => %(stalled_after)s) AS stale
            ), candidate AS (
                SELECT videos.id, videos.identifier, videos.cloud_url
                FROM clock CROSS JOIN videos LEFT JOIN library.video_files AS known ON known.video_id = videos.id
                WHERE (videos.video_codec IS NOT NULL OR videos.audio_codec IS NOT NULL)
                  AND (known.video_id IS NULL OR known.source_url <> videos.cloud_url
                       OR (known.status = 'waiting' AND coalesce(known.due_at, '-infinity') <= now)
                       OR (known.status IN ('inspecting', 'making') AND known.seen_at < stale
                           AND known.attempts < %(most)s))
                ORDER BY videos.id DESC
                LIMIT 1
                FOR KEY SHARE OF videos SKIP LOCKED
            )
            INSERT INTO library.video_files AS known (video_id, source_url, status, owner, seen_at, attempts)
            SELECT id, cloud_url, 'inspecting', %(owner)s, now, 1 FROM candidate CROSS JOIN clock
            ON CONFLICT (video_id) DO UPDATE
            SET source_url = excluded.source_url, status = 'inspecting', owner = excluded.owner,
                seen_at = excluded.seen_at, due_at = NULL, reason = NULL, playable_url = NULL,
                attempts = 1 + CASE WHEN known.source_url = excluded.source_url THEN known.attempts ELSE 0 END,
                failures = CASE WHEN known.source_url = excluded.source_url THEN known.failures ELSE 0 END,
                declared_seconds = CASE WHEN known.source_url = excluded.source_url THEN known.declared_seconds END,
                ends_early = known.ends_early AND known.source_url = excluded.source_url
            WHERE known.source_url <> excluded.source_url
               OR (known.status = 'waiting' AND coalesce(known.due_at, '-infinity') <= (SELECT now FROM clock))
               OR (known.status IN ('inspecting', 'making') AND known.seen_at < (SELECT stale FROM clock))
            RETURNING video_id, (SELECT identifier FROM candidate), source_url, owner, attempts, failures,
                      declared_seconds IS NOT NULL
            """,
            {"owner": owner, "stalled_after": stalled_after, "most": max_attempts},
        )

    async def list_claimed_video_ids(self) -> set[int]:
        cursor = await self._conn.execute(
            "SELECT video_id FROM library.video_files WHERE status IN ('inspecting', 'making')"
        )
        return {video_id for (video_id,) in await cursor.fetchall()}

    async def fail_abandoned_files(self, stalled_after: float, max_attempts: int, reason: str) -> list[str]:
        """Mark as failed the files whose last attempt stalled; return the identifiers of their videos."""
        cursor = await self._conn.execute(
            """
            UPDATE library.video_files AS known SET status = 'failed', reason = %(reason)s, owner = NULL
            FROM videos
            WHERE videos.id = known.video_id AND known.source_url = videos.cloud_url
              AND known.status IN ('inspecting', 'making') AND known.attempts >= %(most)s
              AND known.seen_at < now() AT TIME ZONE 'utc' - make_interval(secs => %(stalled_after)s)
            RETURNING videos.identifier
            """,
            {"reason": reason, "most": max_attempts, "stalled_after": stalled_after},
        )
        return [identifier for (identifier,) in await cursor.fetchall()]

    async def store_status_and_heartbeat(self, file: ClaimedVideoFile, status: PlayableCopyStatus) -> None:
        cursor = await self._conn.execute(
            """
            UPDATE library.video_files AS known SET seen_at = now() AT TIME ZONE 'utc', status = %(status)s
            FROM videos
            WHERE known.video_id = %(video_id)s AND owner = %(owner)s AND attempts = %(attempt)s
              AND known.status IN ('inspecting', 'making')
              AND videos.id = known.video_id AND videos.cloud_url = known.source_url
            """,
            {**_make_claim_query_parameters(file), "status": status},
        )
        if cursor.rowcount != 1:
            raise RunLost

    async def finish_claimed_file(
        self,
        file: ClaimedVideoFile,
        status: PlayableCopyStatus,
        playable_url: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Store the result of a claimed file and end the claim. Raises `RunLost`."""
        cursor = await self._conn.execute(
            """
            UPDATE library.video_files AS known
            SET status = %(status)s, playable_url = %(playable_url)s, reason = %(reason)s, owner = NULL, attempts = 0,
                failures = 0
            FROM videos
            WHERE known.video_id = %(video_id)s AND owner = %(owner)s AND attempts = %(attempt)s
              AND known.status IN ('inspecting', 'making')
              AND videos.id = known.video_id AND videos.cloud_url = known.source_url
            """,
            {**_make_claim_query_parameters(file), "status": status, "playable_url": playable_url, "reason": reason},
        )
        if cursor.rowcount != 1:
            raise RunLost

    async def return_file_to_queue(self, file: ClaimedVideoFile, pause_seconds: float) -> None:
        """Return a file to the queue after `pause_seconds`; its attempts start over, its failures are kept."""
        await self._conn.execute(
            """
            UPDATE library.video_files
            SET status = 'waiting', owner = NULL, attempts = 0, failures = %(failures)s,
                due_at = now() AT TIME ZONE 'utc' + make_interval(secs => %(pause_seconds)s)
            WHERE video_id = %(video_id)s AND owner = %(owner)s AND attempts = %(attempt)s
            """,
            {**_make_claim_query_parameters(file), "pause_seconds": pause_seconds, "failures": file.failures},
        )


def _make_claim_query_parameters(file: ClaimedVideoFile) -> dict[str, Any]:
    return {"video_id": file.video_id, "owner": file.owner, "attempt": file.attempt}
