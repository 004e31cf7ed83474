import wave
from pathlib import Path
from typing import Any

import pytest

from app.ai.protocols import Segment, TranscriptionResult, Word
from app.core.errors import ModelAnswerInvalid, RunLost, StageFailed
from app.models import Transcript
from app.pipeline.context import RunContext
from app.pipeline.files import AUDIO_NAME
from app.pipeline.stages import transcript
from app.repositories import RunRepository, TranscriptRepository, VideoRepository
from app.storage import audio_folder_key
from tests.factories import make_transcript
from tests.pipeline.contexts import make_context, take_over
from tests.pipeline.scripted_models import ScriptedModels, ScriptedTranscriber, transcribed

_HELLO = transcribed(("Hello", 0.0, 0.4), ("there.", 0.4, 0.9))


def _models(
    answer: TranscriptionResult | Exception = _HELLO, **values: Any
) -> tuple[ScriptedModels, ScriptedTranscriber]:
    transcriber = ScriptedTranscriber(answer, **values)
    return ScriptedModels(transcriber), transcriber


def _write_wav_and_count_samples(path: Path, seconds: float = 1.0) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(int(seconds * 32_000)))
    return path


async def _read(context: RunContext) -> Transcript | None:
    async with context.database.connect() as conn:
        return await TranscriptRepository(conn).get_by_video(context.run.video_id)


async def _end(context: RunContext) -> None:
    async with context.database.connect() as conn:
        await RunRepository(conn).update(context.run.id, status="completed")


async def _raw_answer(context: RunContext) -> str | None:
    async with context.database.connect() as conn:
        cursor = await conn.execute("SELECT raw_answer FROM pipeline.runs WHERE run_id = %s", (context.run.id,))
        row = await cursor.fetchone()
    return row[0] if row else None


async def test_stores_what_is_said_with_who_heard_it(own_database_url: str, tmp_path: Path) -> None:
    seen: list[object] = []

    async def look() -> None:
        seen.append(context.progress)

    models, transcriber = _models(meanwhile=look)
    async with make_context(own_database_url, tmp_path, models=models, transcription_model="parakeet") as context:
        wav = _write_wav_and_count_samples(context.folder / AUDIO_NAME)
        assert await transcript.skip_reason(context) is None
        result = await transcript.run_stage(context)
        stored = await _read(context)
    assert models.keys == ["parakeet"]
    assert (transcriber.asked[0].path, transcriber.asked[0].duration_seconds) == (wav, 1.0)
    assert [*seen, context.progress] == [{"percentage": 50}, {"percentage": 100}]
    assert stored is not None
    assert (stored.full_text, stored.language, stored.transcription_service) == (
        "Hello there.",
        "en",
        "scripted-whisper",
    )
    assert stored.word_timestamps == [
        {"word": "Hello", "start": 0.0, "end": 0.4},
        {"word": "there.", "start": 0.4, "end": 0.9},
    ]
    assert stored.segment_timestamps[1] == {"text": "there.", "start": 0.4, "end": 0.9, "word_count": 1}
    assert (stored.number_of_words, stored.number_of_segments) == (2, 2)
    assert stored.processing_time_seconds is not None
    usage = {"calls": 1, "seconds": 0.5, "prompt_tokens": 100, "completion_tokens": 10}
    assert result == {"service": "scripted-whisper", "language": "en", "words": 2, "segments": 2, "usage": usage}


async def test_the_result_says_which_speech_was_dropped(own_database_url: str, tmp_path: Path) -> None:
    answer = transcribed(("Hello", 0.0, 0.4), dropped=[(12.0, 20.0), (20.5, 24.2), (3725.0, 3731.0)])
    models, _ = _models(answer)
    async with make_context(own_database_url, tmp_path, models=models) as context:
        _write_wav_and_count_samples(context.folder / AUDIO_NAME)
        result = await transcript.run_stage(context)
    assert result["reason"] == result["dropped_speech"]
    assert result["reason"] == (
        "Speech that could not be understood is not in the transcript: 0:12-0:24, 1:02:05-1:02:11"
    )


async def test_a_video_that_has_a_transcript_is_skipped(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path) as context:
        async with context.database.connect() as conn:
            await make_transcript(conn, video_id=context.run.video_id)
        assert await transcript.skip_reason(context) == "Transcript already exists"


async def test_without_audio_it_says_what_to_do_first(own_database_url: str, tmp_path: Path) -> None:
    models, _ = _models()
    async with make_context(own_database_url, tmp_path, models=models) as context:
        with pytest.raises(StageFailed, match=r"^Audio file not found\. Please process audio first\.$"):
            await transcript.run_stage(context)


async def test_a_damaged_wav_is_reported_as_that(own_database_url: str, tmp_path: Path) -> None:
    models, _ = _models()
    async with make_context(own_database_url, tmp_path, models=models) as context:
        (context.folder / AUDIO_NAME).write_bytes(b"no audio")
        with pytest.raises(StageFailed, match="damaged"):
            await transcript.run_stage(context)


async def test_audio_that_an_earlier_run_stored_is_used(own_database_url: str, tmp_path: Path) -> None:
    models, transcriber = _models()
    async with make_context(own_database_url, tmp_path, models=models) as context:
        key = f"{audio_folder_key(context.run.video)}/audio.wav"
        stored = await context.storage.put(key, _write_wav_and_count_samples(tmp_path / "audio.wav"))
        await transcript.run_stage(context)
    assert transcriber.asked[0].path.as_uri() == stored.url
    assert transcriber.links == [None]


async def test_audio_in_a_bucket_is_fetched_and_has_a_link(own_database_url: str, tmp_path: Path, bucket: str) -> None:
    models, transcriber = _models()
    settings = {"storage_url": f"gs://{bucket}/media"}
    async with make_context(own_database_url, tmp_path, models=models, settings=settings) as context:
        wav = _write_wav_and_count_samples(tmp_path / "audio.wav")
        await context.storage.put(f"{audio_folder_key(context.run.video)}/audio.wav", wav)
        await transcript.run_stage(context)
        assert transcriber.asked[0].path == context.folder / AUDIO_NAME
        assert transcriber.asked[0].path.read_bytes() == wav.read_bytes()
    assert transcriber.links[0] is not None
    assert "X-Goog-Signature" in transcriber.links[0]


async def test_audio_in_a_folder_has_the_address_of_this_server_unless_keys_close_it(
    own_database_url: str, tmp_path: Path
) -> None:
    video = {"identifier": "a talk"}
    for api_keys in ("", f"ops:write:{'0' * 64}"):
        models, transcriber = _models()
        settings = {"public_url": "https://videos.example/", "api_keys": api_keys}
        async with make_context(own_database_url, tmp_path, models=models, settings=settings, video=video) as context:
            await context.storage.put(
                f"{audio_folder_key('a talk')}/audio.wav", _write_wav_and_count_samples(tmp_path / "audio.wav")
            )
            if api_keys:
                with pytest.raises(StageFailed, match="closed to it where API_KEYS is set"):
                    await transcript.run_stage(context)
            else:
                await transcript.run_stage(context)
                assert transcriber.links == ["https://videos.example/static/audios/a%20talk.wav"]
            await _end(context)


async def test_silence_is_a_transcript_without_words(own_database_url: str, tmp_path: Path) -> None:
    models, _ = _models(transcribed(language=""))
    async with make_context(own_database_url, tmp_path, models=models) as context:
        _write_wav_and_count_samples(context.folder / AUDIO_NAME)
        result = await transcript.run_stage(context)
        stored = await _read(context)
    assert (result["words"], result["language"]) == (0, "und")
    assert stored is not None
    assert (stored.full_text, stored.word_timestamps) == ("", [])


async def test_what_the_database_cannot_hold_is_taken_out(own_database_url: str, tmp_path: Path) -> None:
    answer = transcribed(
        ("a\0b\ud83d", 0.0, 0.4), ("\0", 0.4, 0.5), text="a\0b", service="s" * 80, language="a-long-language"
    )
    models, _ = _models(answer)
    async with make_context(own_database_url, tmp_path, models=models) as context:
        _write_wav_and_count_samples(context.folder / AUDIO_NAME)
        await transcript.run_stage(context)
        stored = await _read(context)
    assert stored is not None
    assert (stored.full_text, [word["word"] for word in stored.word_timestamps]) == ("ab", ["ab"])
    assert (stored.transcription_service, stored.language) == ("s" * 50, "a-long-lan")


async def test_a_word_a_little_past_the_end_is_brought_back(own_database_url: str, tmp_path: Path) -> None:
    models, _ = _models(transcribed(("late", 0.9, 1.3)))
    async with make_context(own_database_url, tmp_path, models=models) as context:
        _write_wav_and_count_samples(context.folder / AUDIO_NAME)
        await transcript.run_stage(context)
        stored = await _read(context)
    assert stored is not None
    assert stored.word_timestamps == [{"word": "late", "start": 0.9, "end": 1.0}]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (transcribed(("a", float("nan"), 0.5)), "no number"),
        (transcribed(("a", 0.0, float("inf"))), "no number"),
        (transcribed(("a", -0.1, 0.5)), "backwards"),
        (transcribed(("a", 0.5, 0.6), ("b", 0.4, 0.7)), "backwards at 0.50"),
        (transcribed(("a", 0.5, 0.4)), "ends before"),
        (transcribed(("a", 0.0, 3.5)), "3.50 seconds, and the audio has only 1.00"),
        (transcribed(words=[Word("a", 0.0, 0.1)], segments=[Segment("a", 600.0, 601.0)]), "only 1.00"),
    ],
)
async def test_times_that_cannot_be_fail_the_stage_and_the_answer_is_kept(
    own_database_url: str, tmp_path: Path, answer: TranscriptionResult, problem: str
) -> None:
    models, _ = _models(answer)
    async with make_context(own_database_url, tmp_path, models=models) as context:
        _write_wav_and_count_samples(context.folder / AUDIO_NAME)
        with pytest.raises(ModelAnswerInvalid, match=problem):
            await transcript.run_stage(context)
        assert await _read(context) is None
        assert '"words":[{"word":"a"' in (await _raw_answer(context) or "")


async def test_an_answer_that_the_transcriber_refuses_is_kept_too(own_database_url: str, tmp_path: Path) -> None:
    models, _ = _models(ModelAnswerInvalid("The service answered no JSON", "<html>\0\ud83d"))
    async with make_context(own_database_url, tmp_path, models=models) as context:
        _write_wav_and_count_samples(context.folder / AUDIO_NAME)
        with pytest.raises(ModelAnswerInvalid, match="no JSON"):
            await transcript.run_stage(context)
        assert await _raw_answer(context) == "<html>"


async def test_of_two_transcripts_the_first_one_stays(own_database_url: str, tmp_path: Path) -> None:
    models, transcriber = _models()
    async with make_context(own_database_url, tmp_path, models=models) as context:
        _write_wav_and_count_samples(context.folder / AUDIO_NAME)

        async def another() -> None:
            async with context.database.connect() as conn:
                await make_transcript(conn, video_id=context.run.video_id, full_text="I was first.")

        transcriber.meanwhile = another
        result = await transcript.run_stage(context)
        stored = await _read(context)
    assert result["reason"] == "Another transcript was there first and is kept"
    assert stored is not None
    assert stored.full_text == "I was first."


async def test_a_video_that_is_deleted_meanwhile_ends_the_stage(own_database_url: str, tmp_path: Path) -> None:
    models, transcriber = _models()
    async with make_context(own_database_url, tmp_path, models=models) as context:
        _write_wav_and_count_samples(context.folder / AUDIO_NAME)

        async def delete() -> None:
            async with context.database.connect() as conn:
                await VideoRepository(conn).delete(context.run.video_id)

        transcriber.meanwhile = delete
        with pytest.raises(StageFailed, match=r"^The video was deleted$"):
            await transcript.run_stage(context)


async def test_a_worker_that_lost_its_run_writes_nothing(own_database_url: str, tmp_path: Path) -> None:
    models, transcriber = _models()
    async with make_context(own_database_url, tmp_path, models=models) as context:
        _write_wav_and_count_samples(context.folder / AUDIO_NAME)
        transcriber.meanwhile = lambda: take_over(context)
        with pytest.raises(RunLost):
            await transcript.run_stage(context)
        assert await _read(context) is None
