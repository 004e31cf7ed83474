"""SQL over `transcripts`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NotRequired, TypedDict, Unpack

from psycopg.types.json import Jsonb

from app.database.queries import Repository, fetch_one, insert_row, list_columns, make_insert
from app.models import Transcript

_SELECT = f"SELECT {list_columns(Transcript)} FROM transcripts"


class NewTranscript(TypedDict):
    """The columns of a new transcript: words are `{"word", "start", "end"}`, segments `{"text", "start", "end"}`."""

    video_id: int
    full_text: str
    word_timestamps: list[dict[str, Any]]
    segment_timestamps: list[dict[str, Any]]
    language: NotRequired[str]
    number_of_words: NotRequired[int | None]
    number_of_segments: NotRequired[int | None]
    transcription_service: NotRequired[str | None]
    processing_time_seconds: NotRequired[float | None]


@dataclass(frozen=True, slots=True)
class TranscriptVersion:
    """What changes with each new transcript of a video; `created_at` distinguishes databases with equal ids."""

    id: int | None
    created_at: datetime | None


class TranscriptRepository(Repository):
    """Transcripts, one for each video. They are immutable."""

    async def create(self, **transcript: Unpack[NewTranscript]) -> Transcript:
        return await insert_row(self._conn, Transcript, "transcripts", _wrap_timestamps_as_jsonb(transcript))

    async def create_if_missing(self, **transcript: Unpack[NewTranscript]) -> bool:
        values = _wrap_timestamps_as_jsonb(transcript)
        cursor = await self._conn.execute(
            make_insert("transcripts", values, " ON CONFLICT (video_id) DO NOTHING"), values
        )
        return cursor.rowcount == 1

    async def get_by_video(self, video_id: int) -> Transcript | None:
        return await fetch_one(self._conn, Transcript, _SELECT + " WHERE video_id = %(id)s", {"id": video_id})

    async def read_segments_json(self, video_identifier: str) -> tuple[TranscriptVersion, str | None] | None:
        """Return the version of a video's transcript and its segments as JSON text; None where no video exists."""
        cursor = await self._conn.execute(
            """
            SELECT transcripts.id, transcripts.created_at, segment_timestamps::text
            FROM videos LEFT JOIN transcripts ON transcripts.video_id = videos.id
            WHERE videos.identifier = %(identifier)s
            """,
            {"identifier": video_identifier},
        )
        row = await cursor.fetchone()
        return (TranscriptVersion(row[0], row[1]), row[2]) if row else None

    async def delete(self, transcript_id: int) -> bool:
        cursor = await self._conn.execute("DELETE FROM transcripts WHERE id = %(id)s", {"id": transcript_id})
        return cursor.rowcount == 1

    async def delete_by_video(self, video_id: int) -> bool:
        cursor = await self._conn.execute(
            "DELETE FROM transcripts WHERE video_id = %(video_id)s", {"video_id": video_id}
        )
        return cursor.rowcount == 1

    async def get_versions_by_identifier(self, video_identifiers: list[str]) -> dict[str, TranscriptVersion]:
        cursor = await self._conn.execute(
            """
            SELECT videos.identifier, transcripts.id, transcripts.created_at
            FROM videos LEFT JOIN transcripts ON transcripts.video_id = videos.id
            WHERE videos.identifier = ANY (%(identifiers)s)
            """,
            {"identifiers": video_identifiers},
        )
        return {identifier: TranscriptVersion(*key) for identifier, *key in await cursor.fetchall()}

    async def read_json_document(self, video_identifier: str) -> tuple[TranscriptVersion, list[bytes]] | None:
        """Return the version of a video's transcript and its JSON document as pieces of UTF-8, encoded by PostgreSQL.

        None where the video does not exist; no pieces where it has no transcript.
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
            {"identifier": video_identifier},
            binary=True,
        )
        row = await cursor.fetchone()
        if row is None:
            return None
        transcript_id, created_at, *pieces = row
        return TranscriptVersion(transcript_id, created_at), [] if transcript_id is None else pieces


def _wrap_timestamps_as_jsonb(transcript: NewTranscript) -> dict[str, Any]:
    return {
        **transcript,
        "word_timestamps": Jsonb(transcript["word_timestamps"]),
        "segment_timestamps": Jsonb(transcript["segment_timestamps"]),
    }
