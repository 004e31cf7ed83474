"""Services that transcribe: OpenAI-compatible ones, a real one among them, and Parakeet."""

import io
import wave
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.ai.protocols import Segment, Word
from app.ai.registry import ModelConfig, ModelKind
from app.ai.service import ModelServiceClient
from app.ai.transcription import OpenAITranscriber
from app.core.errors import ModelAnswerInvalid, StageFailed, TransientFailure
from tests.ai.asr_server import ASR_MODEL_ID, asr_serving
from tests.ai.audio_files import as_audio, make_audio, write_wav
from tests.ai.model_server import ModelServer, Received, Reply
from tests.retries import remove_waits
from tests.speech import speak, word_error_rate

HELLO = {
    "text": " Hello there.",
    "language": "English",
    "words": [{"word": "Hello", "start": 1.0, "end": 1.5}, {"word": "there", "start": 1.6, "end": 2.0}],
    "segments": [{"id": 0, "text": " Hello there.", "start": 1.0, "end": 2.0}],
}


def nothing(done: float) -> None:
    pass


def make(client: httpx.AsyncClient, url: str, **fields: Any) -> OpenAITranscriber:
    config = ModelConfig("Mine", url, kind=ModelKind.TRANSCRIPTION, **fields)
    return OpenAITranscriber(ModelServiceClient(client, "mine", config))


async def test_the_audio_is_sent_and_its_transcript_read(
    client: httpx.AsyncClient, server: ModelServer, tmp_path: Path
) -> None:
    server.transcript(HELLO)
    audio = make_audio(tmp_path / "a.wav")
    heard = await make(client, server.url, model_id="org/whisper-1", api_key="sk-secret").transcribe(audio, nothing)
    assert (heard.text, heard.language, heard.service) == ("Hello there.", "english", "whisper-1")
    assert list(heard.words) == [Word("Hello", 1.0, 1.5), Word("there", 1.6, 2.0)]
    assert list(heard.segments) == [Segment("Hello there.", 1.0, 2.0)]
    assert heard.usage.calls == 1
    request = server.requests[0]
    assert request.path == "/v1/audio/transcriptions"
    assert request.file == audio.path.read_bytes()
    assert request.headers["authorization"] == "Bearer sk-secret"
    assert request.body == {
        "model": ["org/whisper-1"],
        "response_format": ["verbose_json"],
        "timestamp_granularities[]": ["word", "segment"],
    }


async def test_who_transcribed_is_what_the_service_says_or_what_it_is_called(
    client: httpx.AsyncClient, server: ModelServer, tmp_path: Path
) -> None:
    audio = make_audio(tmp_path / "a.wav")
    server.transcript(HELLO)
    assert (await make(client, server.url).transcribe(audio, nothing)).service == "Mine"
    server.transcript(HELLO | {"model": "whisper-large"})
    assert (await make(client, server.url).transcribe(audio, nothing)).service == "whisper-large"
    assert "model" not in server.requests[0].body


async def test_a_service_without_words_gives_those_of_its_segments(
    client: httpx.AsyncClient, server: ModelServer, tmp_path: Path
) -> None:
    server.transcript({name: value for name, value in HELLO.items() if name != "words"})
    heard = await make(client, server.url).transcribe(make_audio(tmp_path / "a.wav"), nothing)
    assert [word.word for word in heard.words] == ["Hello", "there."]


def read_seconds(file: bytes) -> float:
    with wave.open(io.BytesIO(file), "rb") as wav:
        return wav.getnframes() / wav.getframerate()


@pytest.mark.parametrize("shift", [0.0, 3.0])
async def test_long_audio_is_sent_in_chunks_and_each_offset_added_once(
    client: httpx.AsyncClient, server: ModelServer, tmp_path: Path, shift: float
) -> None:
    step, length = 495.0, 505.0  # 1000 seconds in two pieces that share 10
    expected = [shift + n * 7.0 for n in range(140)]
    words: list[dict[str, Any]] = [{"word": f"w{n}", "start": t, "end": t + 0.5} for n, t in enumerate(expected)]

    def transcribe(received: Received) -> Reply:
        start = (len(server.requests) - 1) * step
        heard = [
            {**word, "start": word["start"] - start, "end": word["end"] - start}
            for word in words
            if start <= word["start"] and word["end"] <= start + read_seconds(received.file)
        ]
        segments = [{"text": each["word"], "start": each["start"], "end": each["end"]} for each in heard]
        return Reply(body={"text": "piece", "language": "en", "words": heard, "segments": segments})

    audio = make_audio(tmp_path / "a.wav", 1000.0)  # 32 MB
    server.transcript(transcribe)
    steps: list[float] = []
    heard = await make(client, server.url).transcribe(audio, steps.append)
    assert [read_seconds(request.file) for request in server.requests] == [length, length]
    assert [word.word for word in heard.words] == [f"w{n}" for n in range(140)]
    assert [word.start for word in heard.words] == pytest.approx(expected)
    assert [segment.start for segment in heard.segments] == pytest.approx(expected)
    assert heard.text == " ".join(word.word for word in heard.words)
    assert (heard.usage.calls, heard.language, steps) == (2, "en", [0.5, 1.0])


async def test_a_chunk_that_a_service_is_too_busy_for_is_retried_by_itself(
    client: httpx.AsyncClient, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_waits(monkeypatch, "app.ai.service._CHUNK_POLICY")
    server.script([Reply(body=HELLO), Reply(status=503), Reply(cut=True)])
    server.transcript({"text": ""})
    heard = await make(client, server.url).transcribe(make_audio(tmp_path / "a.wav", 1000.0), nothing)
    assert heard.text == "Hello there."
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "body",
    [
        {"text": "Hello."},
        {"text": "Hello.", "segments": [{"text": "Hello.", "start": 100.0, "end": 101.0}]},
        {"text": "Hello.", "segments": "none"},
        ["Hello."],
        b"Hello.",
    ],
)
async def test_a_transcript_that_cannot_be_is_refused_and_kept(
    client: httpx.AsyncClient, server: ModelServer, tmp_path: Path, body: Any
) -> None:
    server.transcript(Reply(body=body))
    with pytest.raises(ModelAnswerInvalid) as caught:
        await make(client, server.url).transcribe(make_audio(tmp_path / "a.wav"), nothing)
    assert "Hello." in caught.value.raw


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (Reply(status=500), TransientFailure),
        (Reply(status=429), TransientFailure),
        (Reply(cut=True), TransientFailure),
        (Reply(status=400, body={"error": {"message": "no such model"}}), StageFailed),
    ],
)
async def test_a_failure_is_reported_as_what_it_is(
    client: httpx.AsyncClient, server: ModelServer, tmp_path: Path, reply: Reply, failure: type[StageFailed]
) -> None:
    server.transcript(reply)
    with pytest.raises(failure) as caught:
        await make(client, server.url).transcribe(make_audio(tmp_path / "a.wav"), nothing)
    assert type(caught.value) is not StageFailed or failure is StageFailed


async def test_a_real_service_understands_what_is_said(client: httpx.AsyncClient, tmp_path: Path) -> None:
    said = "The planet Mars is much smaller and colder than the Earth."
    samples, rate = speak(said)
    seconds = len(samples) / rate
    audio = as_audio(write_wav(tmp_path / "speech.wav", samples, rate), seconds)
    with asr_serving(tmp_path) as url:
        heard = await make(client, url, model_id=ASR_MODEL_ID).transcribe(audio, nothing)
    assert word_error_rate(said, heard.text) <= 0.1
    assert len(heard.words) >= 10
    assert all(0 <= word.start <= word.end <= seconds for word in heard.words)
    assert heard.language == "en"


LINK = "https://media.example/sound.wav?signature=abc"
