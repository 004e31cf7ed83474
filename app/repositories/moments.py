"""SQL over `moments`."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypedDict, Unpack

from app.database.queries import Repository, copy_rows, fetch_all, fetch_one, list_columns, update_row
from app.models import Moment

_SELECT = f"SELECT {list_columns(Moment)} FROM moments"


class _OptionalMomentColumns(TypedDict, total=False):
    is_refined: bool
    parent_id: int | None
    generation_model: str | None
    generation_config_id: int | None
    score: int | None
    scoring_model: str | None
    scored_at: datetime | None


class MomentChanges(_OptionalMomentColumns, total=False):
    """The columns of a moment that may change; times are seconds."""

    title: str
    start_time: float
    end_time: float


class NewMoment(_OptionalMomentColumns):
    """The columns of a new moment; times are seconds."""

    identifier: str
    video_id: int
    start_time: float
    end_time: float
    title: str


class NewMomentWithId(NewMoment):
    """A new moment with an id from `reserve_moment_ids`."""

    id: int


@dataclass(frozen=True, slots=True)
class MomentInsertion:
    """The identifier of an inserted moment; None where it ends after `video_duration`, or overlaps the other moment."""

    video_duration: float | None
    identifier: str | None
    other_title: str | None
    other_start: float | None
    other_end: float | None


_DEFAULTS: dict[str, Any] = dict.fromkeys(_OptionalMomentColumns.__annotations__) | {"is_refined": False}


def make_random_moment_identifier() -> str:
    return secrets.token_hex(8)


class MomentWithConfig(NamedTuple):
    """A moment with the identifier of its parent, and its generation config as JSON text without null values.

    A tuple is made several times as fast as a frozen dataclass, and a request reads many.
    """

    identifier: str
    start_time: float
    end_time: float
    title: str
    is_refined: bool
    parent_identifier: str | None
    generation_model: str | None
    score: int | None
    scoring_model: str | None
    generation_config: str | None


@dataclass(frozen=True, slots=True)
class ClipAndSpeechTimes:
    """URL and length of a moment's clip, and start and end of the speech around the moment, in seconds of the video.

    `speech_start` is the start of the first word in the window; `speech_end` the end of the first word that ends after
    the window, or else of the last word. Words may be stored in any order.
    """

    has_moment: bool
    clip_url: str | None
    clip_seconds: float | None
    clip_is_audio: bool
    has_transcript: bool
    speech_start: float | None
    speech_end: float | None


# The generation config of a row of `moments` as JSON without nulls.
_CONFIG_JSON = """(
    SELECT json_strip_nulls(json_build_object(
        'model', model, 'temperature', temperature, 'top_p', top_p, 'top_k', top_k,
        'operation_type', operation_type, 'user_prompt', nullif(user_prompt, ''),
        'min_moment_length', min_moment_length, 'max_moment_length', max_moment_length,
        'min_moments', min_moments, 'max_moments', max_moments
    ))::text
    FROM generation_configs JOIN prompts ON prompts.id = prompt_id
    WHERE generation_configs.id = moments.generation_config_id
)"""


class MomentRepository(Repository):
    """Moments by id, by identifier and by video."""

    async def reserve_moment_ids(self, count: int) -> list[int]:
        cursor = await self._conn.execute(
            "SELECT nextval('moments_id_seq') FROM generate_series(1, %(count)s)", {"count": count}
        )
        return [number for (number,) in await cursor.fetchall()]

    async def insert_many(self, moments: Iterable[NewMomentWithId]) -> int:
        columns = ("id", "identifier", "video_id", "start_time", "end_time", "title", *_DEFAULTS)
        return await copy_rows(self._conn, "moments", columns, ({**_DEFAULTS, **moment} for moment in moments))

    async def get(self, moment_id: int) -> Moment | None:
        return await fetch_one(self._conn, Moment, _SELECT + " WHERE id = %(id)s", {"id": moment_id})

    async def get_by_identifier(self, identifier: str) -> Moment | None:
        return await fetch_one(self._conn, Moment, _SELECT + " WHERE identifier = %(key)s", {"key": identifier})

    async def map_moment_identifiers_to_video_ids(self, moment_identifiers: Sequence[str]) -> dict[str, int]:
        cursor = await self._conn.execute(
            "SELECT identifier, video_id FROM moments WHERE identifier = ANY(%(identifiers)s)",
            {"identifiers": list(moment_identifiers)},
        )
        return dict(await cursor.fetchall())

    async def list_by_video(self, video_id: int) -> list[Moment]:
        return await fetch_all(self._conn, Moment, _SELECT + " WHERE video_id = %(id)s ORDER BY id", {"id": video_id})

    async def list_refinements_of(self, moment_id: int) -> list[Moment]:
        return await fetch_all(self._conn, Moment, _SELECT + " WHERE parent_id = %(id)s ORDER BY id", {"id": moment_id})

    async def find_overlapping_moment(
        self, video_id: int, start_time: float, end_time: float, excluded_moment_id: int | None = None
    ) -> Moment | None:
        """Return the earliest moment that overlaps the span; one that only touches it does not overlap.

        `excluded_moment_id` is a moment whose tree is ignored: itself, its ancestors, and all their refinements.
        """
        return await fetch_one(
            self._conn,
            Moment,
            f"""
            WITH RECURSIVE moment_tree AS (
                SELECT id AS member, parent_id AS parent FROM moments WHERE id = %(excluding)s::integer
                UNION
                SELECT id, parent_id FROM moment_tree JOIN moments ON parent_id = member OR id = parent
            )
            {_SELECT}
            WHERE video_id = %(video_id)s AND start_time < %(end_time)s AND end_time > %(start_time)s
              AND id NOT IN (SELECT member FROM moment_tree)
            ORDER BY start_time, id
            LIMIT 1
            """,
            {"video_id": video_id, "start_time": start_time, "end_time": end_time, "excluding": excluded_moment_id},
        )

    async def update(self, moment_id: int, **changes: Unpack[MomentChanges]) -> Moment | None:
        return await update_row(self._conn, Moment, "moments", moment_id, changes)

    async def delete(self, moment_id: int) -> bool:
        cursor = await self._conn.execute("DELETE FROM moments WHERE id = %(id)s", {"id": moment_id})
        return cursor.rowcount == 1

    async def delete_many(self, moment_ids: Sequence[int]) -> int:
        cursor = await self._conn.execute("DELETE FROM moments WHERE id = ANY (%(ids)s)", {"ids": list(moment_ids)})
        return cursor.rowcount

    async def insert_if_free(
        self, video_identifier: str, identifier: str, start_time: float, end_time: float, title: str
    ) -> MomentInsertion | None:
        """Insert a moment that ends inside its video and overlaps no other; None where the video does not exist.

        The function locks the video, so that of two concurrent calls for one span one succeeds.
        """
        return await fetch_one(
            self._conn,
            MomentInsertion,
            """
            SELECT video_duration, identifier, other_title, other_start, other_end
            FROM moments_add_if_free(%(video)s, %(identifier)s, %(start_time)s, %(end_time)s, %(title)s)
            """,
            {
                "video": video_identifier,
                "identifier": identifier,
                "start_time": start_time,
                "end_time": end_time,
                "title": title,
            },
        )

    async def list_moments_with_configs(self, video_identifiers: list[str]) -> dict[str, list[MomentWithConfig]]:
        """Return the moments of each video in the order they were added, by the video's identifier."""
        cursor = await self._conn.execute(
            f"""
            SELECT videos.identifier, moments.generation_config_id,
                   CASE WHEN row_number() OVER same_config = 1 THEN {_CONFIG_JSON} END,
                   moments.identifier, moments.start_time, moments.end_time, moments.title, moments.is_refined,
                   parents.identifier, moments.generation_model, moments.score, moments.scoring_model
            FROM videos
            LEFT JOIN moments ON moments.video_id = videos.id
            LEFT JOIN moments AS parents ON parents.id = moments.parent_id
            WHERE videos.identifier = ANY (%(identifiers)s)
            WINDOW same_config AS (PARTITION BY moments.generation_config_id ORDER BY moments.id)
            ORDER BY moments.id
            """,
            {"identifiers": video_identifiers},
        )
        configs: dict[int | None, str | None] = {}
        moments: dict[str, list[MomentWithConfig]] = {}
        for video, config_id, config, *moment in await cursor.fetchall():
            of_video = moments.setdefault(video, [])
            if moment[0] is not None:
                moment.append(configs.setdefault(config_id, config))
                of_video.append(MomentWithConfig._make(moment))
        return moments

    async def get_clip_and_speech_times(
        self, video_identifier: str, moment_identifier: str, padding_seconds: float
    ) -> ClipAndSpeechTimes | None:
        return await fetch_one(
            self._conn,
            ClipAndSpeechTimes,
            """
            SELECT moments.id IS NOT NULL, clips.cloud_url, clips.end_time - clips.start_time,
                   clips.video_codec IS NULL AND clips.audio_codec IS NOT NULL,
                   transcripts.id IS NOT NULL,
                   (SELECT min(time::float8) FROM jsonb_path_query(
                       word_timestamps, 'lax $[*].start ? (@ >= $from && @ <= $until)',
                       jsonb_build_object('from', greatest(0, moments.start_time - %(padding)s),
                                          'until', moments.end_time + %(padding)s)
                   ) AS time),
                   coalesce(
                       -- A minute is seldom silent, and reading all words takes ten times as long.
                       (SELECT min(time::float8) FROM jsonb_path_query(
                           word_timestamps, 'lax $[*].end ? (@ >= $until && @ < $near)',
                           jsonb_build_object('until', moments.end_time + %(padding)s,
                                              'near', moments.end_time + %(padding)s + 60)
                       ) AS time),
                       (SELECT min(time::float8) FROM jsonb_path_query(
                           word_timestamps, 'lax $[*].end ? (@ >= $until && @ < 1e300)',
                           jsonb_build_object('until', moments.end_time + %(padding)s)
                       ) AS time),
                       (SELECT max(time::float8) FROM jsonb_path_query(
                           word_timestamps, 'lax $[*].end ? (@ >= 0 && @ < 1e300)'
                       ) AS time)
                   )
            FROM videos
            LEFT JOIN moments ON moments.video_id = videos.id AND moments.identifier = %(moment)s
            LEFT JOIN clips ON clips.moment_id = moments.id
            LEFT JOIN transcripts ON transcripts.video_id = videos.id AND moments.id IS NOT NULL
            WHERE videos.identifier = %(video)s
            """,
            {"video": video_identifier, "moment": moment_identifier, "padding": padding_seconds},
        )
