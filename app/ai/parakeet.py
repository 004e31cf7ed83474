"""A transcriber that asks a service which fetches the sound itself: `/transcribe` with its address."""

from app.ai.protocols import Audio, Progress, Transcribed
from app.ai.service import Service, model_name
from app.ai.timeline import Fields, read_answer
from app.core.errors import StageFailed

_LIMIT_SECONDS = 300.0  # and as long as the sound takes
_LONGEST_NAME = 50  # characters that are stored of who transcribed
_FIELDS = Fields(text="transcription", words="word_timestamps", segments="segment_timestamps")


class ParakeetTranscriber:
    """Needs an address from which the service can read the sound."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._config = service.config

    @property
    def service(self) -> str:
        return model_name(self._config, _LONGEST_NAME)

    async def transcribe(self, audio: Audio, progress: Progress) -> Transcribed:
        link = await audio.get_link()
        if link is None:
            raise StageFailed(
                f"{self._config.name} fetches the sound from an address, and there is none: "
                "set PUBLIC_URL, or keep media in a bucket with STORAGE_URL"
            )
        async with self._service.logged("transcribe") as call:
            answer = await self._service.post(
                "/transcribe", _LIMIT_SECONDS + audio.duration_seconds, json={"audio_url": link}
            )
            text, timeline = read_answer(self._config.name, answer, _FIELDS, audio.duration_seconds)
        progress(1.0)
        return Transcribed(text, timeline.words, timeline.segments, "", self.service, call.usage)
