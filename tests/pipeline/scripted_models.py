"""Models that answer what a test tells them, and remember what they were asked."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.ai.protocols import (
    AudioFile,
    Embedder,
    FindRequest,
    FindResult,
    FoundMoment,
    MomentFinder,
    ProgressCallback,
    PromptText,
    RefineRequest,
    RefineResult,
    Segment,
    Transcriber,
    TranscriptionResult,
    Usage,
    Word,
)
from app.core.errors import ModelMissing

USAGE = Usage(calls=1, seconds=0.5, prompt_tokens=100, completion_tokens=10)


async def _nothing() -> None:
    pass


def transcribed(*words: tuple[str, float, float], **values: Any) -> TranscriptionResult:
    """One segment for each word."""
    defaults: dict[str, Any] = {
        "text": " ".join(word for word, _, _ in words),
        "words": [Word(*word) for word in words],
        "segments": [Segment(*word) for word in words],
        "language": "en",
        "service": "scripted-whisper",
        "usage": USAGE,
    }
    return TranscriptionResult(**(defaults | values))


def found(*moments: tuple[float, float, str], model: str = "scripted/finder-2b") -> FindResult:
    return FindResult([FoundMoment(*moment) for moment in moments], model, "[…]", USAGE)


def refined(start: float, end: float, model: str = "scripted/refiner-2b") -> RefineResult:
    return RefineResult(start, end, model, "{…}", USAGE)


@dataclass
class ScriptedTranscriber:
    """Answers `answer`, or raises it; `meanwhile` happens while the call is under way."""

    answer: TranscriptionResult | Exception
    meanwhile: Callable[[], Awaitable[object]] = _nothing
    service: str = "scripted-whisper"
    asked: list[AudioFile] = field(default_factory=list)
    links: list[str | None] = field(default_factory=list)

    async def transcribe(self, audio: AudioFile, progress: ProgressCallback) -> TranscriptionResult:
        self.asked.append(audio)
        self.links.append(await audio.get_url())
        progress(0.5)
        await self.meanwhile()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@dataclass
class ScriptedFinder:
    """Answers `answer` to `find`, and to `refine` what `refine_answer` makes of the request; exceptions are raised."""

    answer: FindResult | Exception = field(default_factory=found)
    refine_answer: Callable[[RefineRequest], RefineResult | Exception] = field(
        default=lambda request: refined(request.moment.start + 1, request.moment.end - 1)
    )
    meanwhile: Callable[[], Awaitable[object]] = _nothing
    model: str = "scripted"
    supports_video: bool = False
    is_local: bool = False
    parameters: Mapping[str, float | int | None] = field(default_factory=lambda: {"top_p": 0.9, "top_k": 20})
    asked: list[FindRequest] = field(default_factory=list)
    refined: list[RefineRequest] = field(default_factory=list)

    def make_generation_prompt(self, prompt: str) -> PromptText:
        return PromptText(prompt or "Find moments", "{user_prompt} in {transcript}")

    def make_refinement_prompt(self, prompt: str, *, with_clip: bool) -> PromptText:
        return PromptText(prompt or "Refine", f"{{user_prompt}} {'with' if with_clip else 'without'} the clip")

    async def find(self, request: FindRequest, progress: ProgressCallback) -> FindResult:
        self.asked.append(request)
        progress(0.5)
        await self.meanwhile()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def refine(self, request: RefineRequest, progress: ProgressCallback) -> RefineResult:
        self.refined.append(request)
        await self.meanwhile()
        answer = self.refine_answer(request)
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass
class ScriptedModels:
    """One transcriber and one finder, under every key."""

    transcriber: Transcriber | None = None
    finder: MomentFinder | None = None
    keys: list[str] = field(default_factory=list)

    async def get_transcriber(self, key: str) -> Transcriber:
        assert self.transcriber is not None
        self.keys.append(key)
        return self.transcriber

    async def get_finder(self, key: str) -> MomentFinder:
        assert self.finder is not None
        self.keys.append(key)
        return self.finder

    async def get_embedder(self, key: str) -> Embedder:
        raise ModelMissing("There is no embedder here")


def talk(seconds: int) -> dict[str, Sequence[dict[str, Any]]]:
    """Columns of a transcript: a word and a segment of it in every second."""
    times = [{"start": float(second), "end": second + 0.8} for second in range(seconds)]
    return {
        "word_timestamps": [{"word": f"word{index}", **each} for index, each in enumerate(times)],
        "segment_timestamps": [{"text": f"word{index}", **each, "word_count": 1} for index, each in enumerate(times)],
    }
