"""Parakeet, a service that fetches the audio itself."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.ai.protocols import Segment, Word
from app.ai.registry import ModelConfig, ModelKind
from app.ai.service import ModelServiceClient, open_http_client
from app.ai.transcription import ParakeetTranscriber
from app.core.errors import ModelAnswerInvalid, StageFailed, TransientFailure
from tests.ai.audio_files import make_audio
from tests.ai.model_server import ModelServer, Reply

LINK = "https://media.example/sound.wav?signature=abc"
HELLO = {
    "transcription": "Oh, there we go.",
    "processing_time": 2.59,
    "word_timestamps": [{"word": "Oh,", "start": 5.76, "end": 5.92}, {"word": "there", "start": 6.0, "end": 6.2}],
    "segment_timestamps": [{"text": "Oh, there we go.", "start": 5.76, "end": 6.88, "word_count": 4}],
    "metadata": {"total_segments": 1, "total_words": 4, "duration": 6.88},
}


@pytest.fixture
async def transcriber(server: ModelServer) -> AsyncIterator[ParakeetTranscriber]:
    async with open_http_client() as client:
        config = ModelConfig("Parakeet", f"{server.url}/", kind=ModelKind.PARAKEET)
        yield ParakeetTranscriber(ModelServiceClient(client, "parakeet", config))


def nothing(done: float) -> None:
    pass


async def test_the_address_of_the_audio_is_sent_and_its_transcript_read(
    transcriber: ParakeetTranscriber, server: ModelServer, tmp_path: Path
) -> None:
    server.transcript(HELLO)
    heard = await transcriber.transcribe(make_audio(tmp_path / "a.wav", link=LINK), nothing)
    assert (server.requests[0].path, server.requests[0].body) == ("/transcribe", {"audio_url": LINK})
    assert (heard.text, heard.service) == ("Oh, there we go.", "Parakeet")
    assert list(heard.words) == [Word("Oh,", 5.76, 5.92), Word("there", 6.0, 6.2)]
    assert list(heard.segments) == [Segment("Oh, there we go.", 5.76, 6.88)]


async def test_without_an_address_it_is_said_how_to_get_one(
    transcriber: ParakeetTranscriber, server: ModelServer, tmp_path: Path
) -> None:
    with pytest.raises(StageFailed, match="set PUBLIC_URL, or keep media in a bucket"):
        await transcriber.transcribe(make_audio(tmp_path / "a.wav"), nothing)
    assert server.requests == []


@pytest.mark.parametrize(
    "changes",
    [
        {"word_timestamps": None, "segment_timestamps": None},
        {"word_timestamps": [{"word": "late", "start": 20.0, "end": 21.0}]},
        {"segment_timestamps": [{"text": "No times."}]},
        {"segment_timestamps": [5]},
    ],
)
async def test_a_transcript_that_cannot_be_is_refused_and_kept(
    transcriber: ParakeetTranscriber, server: ModelServer, tmp_path: Path, changes: dict[str, Any]
) -> None:
    server.transcript(HELLO | changes)
    with pytest.raises(ModelAnswerInvalid) as caught:
        await transcriber.transcribe(make_audio(tmp_path / "a.wav", link=LINK), nothing)
    assert "Oh, there we go." in caught.value.raw


async def test_a_service_that_fails_may_be_asked_again(
    transcriber: ParakeetTranscriber, server: ModelServer, tmp_path: Path
) -> None:
    server.transcript(Reply(status=503))
    with pytest.raises(TransientFailure, match="Parakeet answered 503"):
        await transcriber.transcribe(make_audio(tmp_path / "a.wav", link=LINK), nothing)
