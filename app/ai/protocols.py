"""Protocols and data of transcribers and moment finders, local ones and services alike."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# Called on the event loop with the completed share, 0 to 1.
ProgressCallback = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Word:
    """A spoken word; times are seconds from the beginning of the audio."""

    word: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence or a part of one, as a caption shows it; times are seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Usage:
    """The cost of one or several model calls; tokens are as counted by the service."""

    calls: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls + other.calls,
            self.seconds + other.seconds,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class AudioFile:
    """A WAV file: 16 kHz, mono, 16 bits. `get_url` returns a URL for services, None if there is none."""

    path: Path
    duration_seconds: float
    get_url: Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class TranscriptionResult:
    """A transcript in order of time. `service` is the model that made it ("whisper-tiny.en").

    `dropped` are spans, in seconds, of speech whose words were not reliable and are left out.
    """

    text: str
    words: Sequence[Word]
    segments: Sequence[Segment]
    language: str
    service: str
    usage: Usage
    dropped: Sequence[tuple[float, float]] = ()


class Transcriber(Protocol):
    """Transcribes audio; can be cancelled.

    Raises `TransientFailure`, `ModelAnswerInvalid`, `ModelMissing` and `StageFailed`.
    """

    @property
    def service(self) -> str:
        """Return the name of the model that is stored with the transcript."""
        ...

    async def transcribe(self, audio: AudioFile, progress: ProgressCallback) -> TranscriptionResult: ...


@dataclass(frozen=True, slots=True)
class FindRequest:
    """The input of a search for moments. Lengths and times are seconds; an empty prompt means the default one.

    `video` and `audio` are local files for finders that use them, None if there are none. `scene_cuts` may be
    incomplete.
    """

    segments: Sequence[Segment]
    words: Sequence[Word]
    duration_seconds: float
    min_length: float
    max_length: float
    min_count: int
    max_count: int
    prompt: str = ""
    temperature: float = 0.7
    audio: Path | None = None
    video: Path | None = None
    scene_cuts: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class FoundMoment:
    """A proposed moment; times are seconds of the video."""

    start: float
    end: float
    title: str


@dataclass(frozen=True, slots=True)
class FindResult:
    """Moments in order of time, without overlaps, all within the limits of the request.

    `model` is the name that the model reported, stored with each moment; `raw` is its answer.
    """

    moments: Sequence[FoundMoment]
    model: str
    raw: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class ClipLink:
    """The clip of a moment for a model: a URL, or a `data:` URL."""

    url: str


@dataclass(frozen=True, slots=True)
class RefineRequest:
    """The moment to refine and the words of its window, all in seconds of the video.

    The finder itself converts to times relative to the window, and back.
    """

    moment: FoundMoment
    words: Sequence[Word]
    window_start: float
    window_end: float
    duration_seconds: float
    prompt: str = ""
    temperature: float = 0.7
    clip: ClipLink | None = None


@dataclass(frozen=True, slots=True)
class RefineResult:
    """Refined times of a moment, in seconds of the video, inside its window."""

    start: float
    end: float
    model: str
    raw: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class PromptText:
    """The two texts of a `prompts` row, before data of a video is filled in."""

    user_prompt: str
    system_prompt: str  # a template with `{transcript}`, `{user_prompt}`, `{duration}` …


class MomentFinder(Protocol):
    """Finds and refines moments; raises the errors of a `Transcriber`, and cancellation ends a call at once."""

    @property
    def model(self) -> str:
        """Return the registry's name of the model, known before a call, or that of the local one."""
        ...

    @property
    def supports_video(self) -> bool: ...

    @property
    def is_local(self) -> bool: ...

    @property
    def parameters(self) -> Mapping[str, float | int | None]:
        """Return `top_p` and `top_k`, which belong to the generation config."""
        ...

    def make_generation_prompt(self, prompt: str) -> PromptText: ...

    def make_refinement_prompt(self, prompt: str, *, with_clip: bool) -> PromptText: ...

    async def find(self, request: FindRequest, progress: ProgressCallback) -> FindResult: ...

    async def refine(self, request: RefineRequest, progress: ProgressCallback) -> RefineResult: ...


class Embedder(Protocol):
    """Computes vectors of texts, such that those of similar meaning are near each other (by their angle).

    Raises `TransientFailure`, `ModelAnswerInvalid`, `ModelMissing` and `StageFailed`.
    """

    @property
    def name(self) -> str:
        """Return the key of the model, a slash and what it computes: vectors of different names do not compare."""
        ...

    async def embed(self, texts: Sequence[str], *, at_once: int = 1) -> Sequence[Sequence[float]]:
        """Return the vector of each text, all of one length; up to `at_once` cores or calls are used."""
        ...


class Models(Protocol):
    """Opens models by their registry keys. Raises `ModelNotConfigured` for an unknown key."""

    async def get_transcriber(self, key: str) -> Transcriber: ...

    async def get_finder(self, key: str) -> MomentFinder: ...

    async def get_embedder(self, key: str) -> Embedder: ...
