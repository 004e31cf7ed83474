"""A transcriber that asks an OpenAI-compatible service: `/v1/audio/transcriptions`."""

import asyncio
from functools import partial

from app.ai.patience import try_thrice
from app.ai.pieces import MAX_FILE_BYTES, Piece, WavPiece, join_timelines, plan_pieces
from app.ai.protocols import Audio, Progress, Transcribed, Usage
from app.ai.service import Service, model_name, read_name, versioned
from app.ai.timeline import Fields, Timeline, read_answer

_LIMIT_SECONDS = 300.0  # and as long as the sound takes: a service that is slower than speech is of no use
_LONGEST_NAME = 50  # characters that are stored of who transcribed
_FORM = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
_FIELDS = Fields(text="text", words="words", segments="segments")


class SpeechTranscriber:
    """Sends the sound itself: whole where it is small enough, else in pieces, one after the other.

    Services that tell no times of words get them from their segments, see `read_timeline`.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._config = service.config

    @property
    def service(self) -> str:
        return model_name(self._config, _LONGEST_NAME)

    async def transcribe(self, audio: Audio, progress: Progress) -> Transcribed:
        size = (await asyncio.to_thread(audio.path.stat)).st_size
        pieces = plan_pieces(audio.duration_seconds) if size > MAX_FILE_BYTES else [Piece(0.0, audio.duration_seconds)]
        heard: list[Transcribed] = []
        for piece in pieces:
            call = partial(self._ask, audio, piece, is_whole=len(pieces) == 1)
            heard.append(await (try_thrice(call) if len(pieces) > 1 else call()))
            progress(len(heard) / len(pieces))
        timeline = join_timelines(pieces, [Timeline(each.words, each.segments) for each in heard])
        return Transcribed(
            text=heard[0].text if len(heard) == 1 else timeline.text,
            words=timeline.words,
            segments=timeline.segments,
            language=next((each.language for each in heard if each.language), ""),
            service=heard[0].service,
            usage=sum((each.usage for each in heard), Usage()),
        )

    async def _ask(self, audio: Audio, piece: Piece, *, is_whole: bool) -> Transcribed:
        """Return the transcript of one piece, in its own time."""
        model = {"model": self._config.model_id} if self._config.model_id else {}
        open_file = partial(audio.path.open, "rb") if is_whole else partial(WavPiece, audio.path, piece)
        with await asyncio.to_thread(open_file) as file:
            async with self._service.logged("transcribe") as call:
                answer = await self._service.post(
                    versioned(self._config, "/audio/transcriptions"),
                    _LIMIT_SECONDS + piece.end - piece.start,
                    data=_FORM | model,
                    files={"file": ("audio.wav", file, "audio/wav")},
                )
                text, timeline = read_answer(self._config.name, answer, _FIELDS, piece.end - piece.start)
        language = read_name(answer.get("language"), "", _LONGEST_NAME).lower()
        service = read_name(answer.get("model"), self.service, _LONGEST_NAME)
        return Transcribed(text, timeline.words, timeline.segments, language, service, call.usage)
