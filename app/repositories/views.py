"""What the API shows of several tables at once, each view in one statement."""

from dataclasses import dataclass
from datetime import datetime
from posixpath import splitext

from psycopg import sql

from app.database import Connection
from app.database.queries import fetch_all
from app.models.video import shown_title


@dataclass(frozen=True, slots=True)
class VideoCard:
    """A video as a list shows it; `may_have_file` is false where nothing is known of any."""

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
        return shown_title(self.identifier, self.stored_title)


@dataclass(frozen=True, slots=True)
class SingleVideoCard(VideoCard):
    """A video with what there is to report of its file: that it ends early, and its copy for browsers."""

    duration_seconds: float | None
    ends_early: bool
    declared_seconds: float | None
    copy_status: str | None
    copy_reason: str | None


@dataclass(frozen=True, slots=True)
class ShownMoment:
    """A moment with its parent's identifier and its generation config as ready JSON, without null values."""

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
class TranscriptKey:
    """The transcript that a video has now. Another transcription gets another id; the time tells databases apart."""

    id: int | None
    created_at: datetime | None


_CARDS = """
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
_LISTED_CARDS = _CARDS.format(more_columns="", more_tables="")
_SINGLE_CARDS = _CARDS.format(
    more_columns=""", duration_seconds, coalesce(ends_early, false), declared_seconds,
           nullif(status, 'unneeded'), reason""",
    more_tables="""
    LEFT JOIN library.video_files
        ON video_files.video_id = videos.id AND video_files.source_url = videos.cloud_url
    """,
)

# Videos whose first download has not succeeded are in no list. One that has a size was downloaded by a worker of an
# earlier version, which knows nothing of pending ones.
_COMPLETE = "(videos.file_size_kb IS NOT NULL OR videos.id NOT IN (SELECT video_id FROM pipeline.pending_videos))"

# The config of a row of `moments`, as JSON without nulls.
_CONFIG = """(
    SELECT json_strip_nulls(json_build_object(
        'model', model, 'temperature', temperature, 'top_p', top_p, 'top_k', top_k,
        'operation_type', operation_type, 'user_prompt', nullif(user_prompt, ''),
        'min_moment_length', min_moment_length, 'max_moment_length', max_moment_length,
        'min_moments', min_moments, 'max_moments', max_moments
    ))::text
    FROM generation_configs JOIN prompts ON prompts.id = prompt_id
    WHERE generation_configs.id = moments.generation_config_id
)"""


class ViewRepository:
    """Reads that join tables."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def list_cards(self, limit: int, after: str = "") -> list[VideoCard]:
        """Return at most `limit` videos behind the identifier `after`, ordered by identifier.

        Those whose file has never come are not among them.
        """
        # A literal limit, and no condition on the identifier where there is none: PostgreSQL plans a parameter for
        # a part of the table, whatever its value, and a whole library is twice as slow that way.
        where = f"WHERE {_COMPLETE}" + (" AND videos.identifier > %(after)s" if after else "")
        page = sql.SQL(_LISTED_CARDS + where + " ORDER BY videos.identifier LIMIT {}").format(sql.Literal(limit))
        return await fetch_all(self._conn, VideoCard, page, {"after": after})

    async def get_cards(self, identifiers: list[str]) -> dict[str, SingleVideoCard]:
        """Return the videos with these identifiers, by identifier."""
        rows = await fetch_all(
            self._conn,
            SingleVideoCard,
            _SINGLE_CARDS + "WHERE videos.identifier = ANY (%(identifiers)s)",
            {"identifiers": identifiers},
        )
        return {card.identifier: card for card in rows}

    async def list_moments(self, identifiers: list[str]) -> dict[str, list[ShownMoment]]:
        """Return the moments of each of these videos, by the video's identifier, in the order they were added.

        A config comes with the first moment that has it, not with each.
        """
        cursor = await self._conn.execute(
            f"""
            SELECT videos.identifier, moments.generation_config_id,
                   CASE WHEN row_number() OVER same_config = 1 THEN {_CONFIG} END,
                   moments.identifier, moments.start_time, moments.end_time, moments.title, moments.is_refined,
                   parents.identifier, moments.generation_model, moments.score, moments.scoring_model
            FROM videos
            LEFT JOIN moments ON moments.video_id = videos.id
            LEFT JOIN moments AS parents ON parents.id = moments.parent_id
            WHERE videos.identifier = ANY (%(identifiers)s)
            WINDOW same_config AS (PARTITION BY moments.generation_config_id ORDER BY moments.id)
            ORDER BY moments.id
            """,
            {"identifiers": identifiers},
        )
        configs: dict[int | None, str | None] = {}
        moments: dict[str, list[ShownMoment]] = {}
        for video, config_id, config, *moment in await cursor.fetchall():
            of_video = moments.setdefault(video, [])
            if moment[0] is not None:
                moment.append(configs.setdefault(config_id, config))
                of_video.append(ShownMoment(*moment))
        return moments

    async def get_transcript_keys(self, identifiers: list[str]) -> dict[str, TranscriptKey]:
        """Return which transcript each of these videos has, by the video's identifier."""
        cursor = await self._conn.execute(
            """
            SELECT videos.identifier, transcripts.id, transcripts.created_at
            FROM videos LEFT JOIN transcripts ON transcripts.video_id = videos.id
            WHERE videos.identifier = ANY (%(identifiers)s)
            """,
            {"identifiers": identifiers},
        )
        return {identifier: TranscriptKey(*key) for identifier, *key in await cursor.fetchall()}

    async def read_transcript(self, identifier: str) -> tuple[TranscriptKey, list[bytes]] | None:
        """Return which transcript a video has, and its JSON document in pieces, as PostgreSQL prints it.

        Nothing is decoded on the way. None where there is no such video; no pieces where it has no transcript.
        """
        cursor = await self._conn.execute(
            """
            SELECT transcripts.id, transcripts.created_at,
                   convert_to('{"transcription":' || to_json(full_text)::text || ',"processing_time":'
                              || coalesce(processing_time_seconds::text, 'null') || ',"word_timestamps":', 'UTF8'),
                   convert_to(coalesce(ready.word_timestamps, transcripts.word_timestamps::text), 'UTF8'),
                   convert_to(',"segment_timestamps":' || segment_timestamps::text, 'UTF8'),
                   convert_to(',"metadata":' || json_build_object(
                       'total_segments', coalesce(number_of_segments, jsonb_array_length(segment_timestamps)),
                       'total_words', coalesce(number_of_words, jsonb_array_length(transcripts.word_timestamps)),
                       'duration', coalesce(
                           segment_timestamps -> -1 -> 'end', transcripts.word_timestamps -> -1 -> 'end'
                       )
                   )::text || '}', 'UTF8')
            FROM videos
            LEFT JOIN transcripts ON transcripts.video_id = videos.id
            LEFT JOIN search.transcripts AS ready ON ready.transcript_id = transcripts.id
            WHERE videos.identifier = %(identifier)s
            """,
            {"identifier": identifier},
            binary=True,
        )
        row = await cursor.fetchone()
        if row is None:
            return None
        transcript_id, created_at, *pieces = row
        return TranscriptKey(transcript_id, created_at), [] if transcript_id is None else pieces
