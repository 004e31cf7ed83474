"""What the repository of transcripts promises, and how many statements each promise costs."""

from typing import Any

import psycopg
import pytest

from app.database import Connection
from app.repositories import TranscriptRepository
from tests.conftest import Statements
from tests.factories import make_transcript, make_video

_WORDS: list[dict[str, Any]] = [
    {"word": "Grüße", "start": 0.0, "end": 0.48},
    {"word": 'a "quote"', "start": 1, "end": 2},
]
_SEGMENTS: list[dict[str, Any]] = [{"text": 'Grüße a "quote"\n', "start": 0.0, "end": 2.0, "word_count": 3}]


async def test_create_returns_the_stored_row(conn: Connection, statements: Statements) -> None:
    video, transcripts = await make_video(conn), TranscriptRepository(conn)
    with statements:
        transcript = await transcripts.create(
            video_id=video.id,
            full_text='Grüße a "quote"',
            word_timestamps=_WORDS,
            segment_timestamps=_SEGMENTS,
            language="de",
            number_of_words=3,
            number_of_segments=1,
            transcription_service="whisper",
            processing_time_seconds=4.5,
        )
    assert statements == 1
    assert (transcript.word_timestamps, transcript.segment_timestamps) == (_WORDS, _SEGMENTS)
    assert (transcript.full_text, transcript.language) == ('Grüße a "quote"', "de")
    assert (transcript.number_of_words, transcript.number_of_segments) == (3, 1)
    assert (transcript.transcription_service, transcript.processing_time_seconds) == ("whisper", 4.5)
    assert await transcripts.get_by_video(video.id) == transcript


async def test_a_transcript_is_english_unless_it_says_otherwise(conn: Connection) -> None:
    created = await make_transcript(conn)
    assert created.language == await _default_language(conn) == "en"


async def test_timestamps_may_be_empty(conn: Connection) -> None:
    transcript = await make_transcript(conn, full_text="", word_timestamps=[], segment_timestamps=[])
    assert (transcript.full_text, transcript.word_timestamps, transcript.segment_timestamps) == ("", [], [])


async def test_a_video_has_one_transcript(conn: Connection) -> None:
    transcript = await make_transcript(conn)
    with pytest.raises(psycopg.errors.UniqueViolation) as raised:
        await make_transcript(conn, video_id=transcript.video_id)
    assert raised.value.diag.constraint_name == "transcripts_video_id_key"


async def test_get_by_video_finds_the_transcript(conn: Connection, statements: Statements) -> None:
    transcript = await make_transcript(conn)
    await make_transcript(conn)
    with statements:
        found = await TranscriptRepository(conn).get_by_video(transcript.video_id)
    assert statements == 1
    assert found == transcript


async def test_a_transcript_that_is_not_there_is_none(conn: Connection, statements: Statements) -> None:
    transcripts = TranscriptRepository(conn)
    with statements:
        assert await transcripts.get_by_video(0) is None
        assert await transcripts.delete(0) is False
        assert await transcripts.delete_by_video(0) is False
    assert statements == 3


async def test_a_transcript_is_deleted_by_its_id_or_by_its_video(conn: Connection, statements: Statements) -> None:
    by_id, by_video, kept = await make_transcript(conn), await make_transcript(conn), await make_transcript(conn)
    transcripts = TranscriptRepository(conn)
    with statements:
        assert await transcripts.delete(by_id.id) is True
        assert await transcripts.delete_by_video(by_video.video_id) is True
    assert statements == 2
    assert await transcripts.get_by_video(by_id.video_id) is None
    assert await transcripts.get_by_video(kept.video_id) == kept


async def test_text_with_a_null_character_is_refused(conn: Connection) -> None:
    with pytest.raises(psycopg.DataError):
        await make_transcript(conn, word_timestamps=[{"word": "a\0b", "start": 0, "end": 1}])


async def _default_language(conn: Connection) -> str:
    video = await make_video(conn)
    cursor = await conn.execute(
        """
        INSERT INTO transcripts (video_id, full_text, word_timestamps, segment_timestamps)
        VALUES (%s, '', '[]', '[]') RETURNING language
        """,
        (video.id,),
    )
    (language,) = await anext(cursor)
    return str(language)
