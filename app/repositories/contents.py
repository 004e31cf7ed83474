"""Everything that belongs to a video: read and deleted by kind, and set aside while a run replaces it."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.database.queries import Repository, fetch_all, fetch_returned_row, fetch_value, list_columns
from app.models import Clip, Moment, Thumbnail
from app.repositories.moments import MomentRepository
from app.repositories.runs import IS_WAITING


@dataclass(frozen=True, slots=True)
class FileReference:
    """A file that a row refers to: its URL, and `kind`: video, playable, thumbnail, clip or clip_thumbnail."""

    kind: str
    owner_id: int
    url: str


@dataclass(frozen=True, slots=True)
class VideoContents:
    """A video's transcript id, number of moments, run identifiers, and state of its active run: pending, processing."""

    transcript_id: int | None
    moments: int
    runs: list[str]
    active_status: str | None


class VideoContentsRepository(Repository):
    """Moments, clips, runs and file URLs of one video."""

    async def get_contents(self, video_id: int) -> VideoContents:
        return await fetch_returned_row(
            self._conn,
            VideoContents,
            f"""
            SELECT (SELECT transcripts.id FROM transcripts WHERE video_id = %(video_id)s),
                   (SELECT count(*) FROM moments WHERE video_id = %(video_id)s),
                   ARRAY(SELECT identifier FROM pipeline_history WHERE video_id = %(video_id)s),
                   coalesce(
                       (SELECT CASE WHEN {IS_WAITING} THEN 'pending' ELSE 'processing' END
                        FROM pipeline_history JOIN pipeline.runs ON runs.run_id = pipeline_history.id
                        WHERE video_id = %(video_id)s AND status = 'running'
                        LIMIT 1),
                       (SELECT CASE status WHEN 'pending' THEN 'pending' WHEN 'running' THEN 'processing' END
                        FROM pipeline_history WHERE video_id = %(video_id)s
                        ORDER BY started_at DESC, id DESC LIMIT 1)
                   )
            """,
            {"video_id": video_id},
        )

    async def list_file_references(self, video_id: int) -> list[FileReference]:
        return await fetch_all(
            self._conn,
            FileReference,
            """
            SELECT 'video', id, cloud_url FROM videos WHERE id = %(video_id)s
            UNION ALL
            SELECT 'playable', video_id, playable_url FROM library.video_files
            WHERE video_id = %(video_id)s AND playable_url IS NOT NULL
            UNION ALL
            SELECT 'thumbnail', id, cloud_url FROM thumbnails WHERE video_id = %(video_id)s
            UNION ALL
            SELECT 'clip', id, cloud_url FROM clips WHERE video_id = %(video_id)s
            UNION ALL
            SELECT 'clip_thumbnail', clips.id, thumbnails.cloud_url
            FROM clips JOIN thumbnails ON thumbnails.clip_id = clips.id
            WHERE clips.video_id = %(video_id)s
            """,
            {"video_id": video_id},
        )

    async def delete_clips(self, clip_ids: Sequence[int]) -> None:
        await self._conn.execute("DELETE FROM clips WHERE id = ANY (%(ids)s)", {"ids": list(clip_ids)})

    async def delete_moments_without_clip(self, video_id: int) -> int:
        cursor = await self._conn.execute(
            """
            DELETE FROM moments
            WHERE video_id = %(video_id)s AND NOT EXISTS (SELECT FROM clips WHERE clips.moment_id = moments.id)
            """,
            {"video_id": video_id},
        )
        return cursor.rowcount


class ReplacedMomentsRepository(Repository):
    """Moments that a run replaces, kept until it has ended. The caller has locked the video."""

    async def set_moments_aside(
        self, run_id: int, replaced_moment_ids: Sequence[int], new_moment_ids: Sequence[int]
    ) -> None:
        """Delete the moments that a run replaces, and keep a copy of their rows until it has ended.

        A repeated call, after a commit without an answer, keeps none of the new moments.
        """
        await self._conn.execute(
            """
            INSERT INTO pipeline.replaced (run_id, moments, clips, thumbnails, made)
            SELECT %(run_id)s,
                   (SELECT coalesce(jsonb_agg(to_jsonb(moments) ORDER BY id), '[]')
                    FROM moments WHERE id = ANY (%(replaced)s)),
                   (SELECT coalesce(jsonb_agg(to_jsonb(clips) ORDER BY id), '[]')
                    FROM clips WHERE moment_id = ANY (%(replaced)s)),
                   (SELECT coalesce(jsonb_agg(to_jsonb(thumbnails) ORDER BY thumbnails.id), '[]')
                    FROM thumbnails JOIN clips ON clips.id = clip_id WHERE moment_id = ANY (%(replaced)s)),
                   %(replacements)s
            ON CONFLICT (run_id) DO UPDATE SET made = excluded.made
            """,
            {"run_id": run_id, "replaced": list(replaced_moment_ids), "replacements": list(new_moment_ids)},
        )
        await MomentRepository(self._conn).delete_many(replaced_moment_ids)

    async def discard_set_aside_rows_of_run(self, run_id: int) -> set[str]:
        """Delete the rows that a run has set aside; return the URLs of files that no row refers to any more."""
        cursor = await self._conn.execute(
            """
            WITH discarded AS (DELETE FROM pipeline.replaced WHERE run_id = %(run_id)s RETURNING clips, thumbnails)
            SELECT video_id, ARRAY(
                SELECT value ->> 'cloud_url' FROM discarded, jsonb_array_elements(clips || thumbnails)
            )
            FROM pipeline_history WHERE id = %(run_id)s AND EXISTS (SELECT FROM discarded)
            """,
            {"run_id": run_id},
        )
        row = await cursor.fetchone()
        if row is None:
            return set()
        return set(row[1]) - {
            file.url for file in await VideoContentsRepository(self._conn).list_file_references(row[0])
        }

    async def discard_set_aside_rows_of_video(self, video_id: int) -> None:
        await self._conn.execute(
            """
            DELETE FROM pipeline.replaced USING pipeline_history AS history
            WHERE run_id = history.id AND video_id = %(video_id)s
            """,
            {"video_id": video_id},
        )

    async def discard_set_aside_clips(self, video_id: int, *, keeps_local: bool, keeps_in_bucket: bool) -> None:
        await self._conn.execute(
            """
            UPDATE pipeline.replaced SET clips = (
                SELECT coalesce(jsonb_agg(clip), '[]') FROM jsonb_array_elements(clips) AS clip
                WHERE CASE WHEN starts_with(clip ->> 'cloud_url', 'gs://') THEN %(in_bucket)s ELSE %(local)s END
            )
            FROM pipeline_history AS history
            WHERE run_id = history.id AND video_id = %(video_id)s
            """,
            {"video_id": video_id, "local": keeps_local, "in_bucket": keeps_in_bucket},
        )

    async def restore_moments(self, run_id: int) -> set[str] | None:
        """Restore the moments that a run has set aside; return the URLs of files that no row refers to any more.

        None where the run has set aside nothing. Moments whose config was deleted, or whose identifier is taken, are
        not restored.
        """
        video_id = await fetch_value(
            self._conn,
            """
            SELECT video_id FROM pipeline_history AS history JOIN pipeline.replaced ON run_id = history.id
            WHERE history.id = %(run_id)s
            """,
            {"run_id": run_id},
        )
        if video_id is None:
            return None
        contents = VideoContentsRepository(self._conn)
        before = {file.url for file in await contents.list_file_references(video_id)}
        await self._delete_new_moments(run_id)
        await self._insert_set_aside_rows(run_id)
        await self._conn.execute("DELETE FROM pipeline.replaced WHERE run_id = %(run_id)s", {"run_id": run_id})
        return before - {file.url for file in await contents.list_file_references(video_id)}

    async def _delete_new_moments(self, run_id: int) -> None:
        await self._conn.execute(
            """
            WITH RECURSIVE made AS (
                SELECT unnest(made) AS id FROM pipeline.replaced WHERE run_id = %(run_id)s
                UNION
                SELECT moments.id FROM made JOIN moments ON parent_id = made.id
            )
            DELETE FROM moments WHERE id IN (SELECT id FROM made)
            """,
            {"run_id": run_id},
        )

    async def _insert_set_aside_rows(self, run_id: int) -> None:
        of_run = {"run_id": run_id}
        columns = list_columns(Moment)
        restored = columns.replace(
            "parent_id", "CASE WHEN parent_id IN (SELECT id FROM kept UNION SELECT id FROM moments) THEN parent_id END"
        )
        await self._conn.execute(
            f"""
            WITH kept AS (
                SELECT held.*
                FROM pipeline.replaced CROSS JOIN LATERAL jsonb_populate_recordset(NULL::moments, moments) AS held
                WHERE run_id = %(run_id)s
                  AND (generation_config_id IS NULL
                       OR generation_config_id IN (SELECT configs.id FROM generation_configs AS configs))
                  AND NOT EXISTS (SELECT FROM moments AS other WHERE other.identifier = held.identifier)
            )
            INSERT INTO moments ({columns}) SELECT {restored} FROM kept
            """,
            of_run,
        )
        for table, row_class, parent, parents in (
            ("clips", Clip, "moment_id", "moments"),
            ("thumbnails", Thumbnail, "clip_id", "clips"),
        ):
            columns = list_columns(row_class)
            await self._conn.execute(
                f"""
                INSERT INTO {table} ({columns})
                SELECT {columns}
                FROM (SELECT held.* FROM pipeline.replaced
                      CROSS JOIN LATERAL jsonb_populate_recordset(NULL::{table}, {table}) AS held
                      WHERE run_id = %(run_id)s) AS kept
                WHERE {parent} IN (SELECT {parents}.id FROM {parents})
                """,
                of_run,
            )
