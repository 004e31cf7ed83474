"""What is asked of a model that transcribes, or that finds and refines moments, whoever answers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# Called on the event loop with how much of a call is done, from 0 to 1.
ProgressCallback = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Word:
    """A spoken word; times are seconds from the beginning of the sound."""

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
    """What one or several calls of a model cost; tokens are those that the service itself counted."""

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
    """A WAV file, 16 kHz, mono, 16 bits. `get_url` gives an address that a service can read it from, or None."""

    path: Path
    duration_seconds: float
    get_url: Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class TranscriptionResult:
    """What is said in a sound, in order of time. `service` is who really transcribed it ("whisper-tiny.en").

    `dropped` are the spans, in seconds, of speech whose words could not be trusted and are in none of the texts.
    """

    text: str
    words: Sequence[Word]
    segments: Sequence[Segment]
    language: str
    service: str
    usage: Usage
    dropped: Sequence[tuple[float, float]] = ()


class Transcriber(Protocol):
    """Raises `TransientFailure`, `ModelAnswerInvalid`, `ModelMissing`, `StageFailed`; a cancelled call ends at once."""

    @property
    def service(self) -> str:
        """Who transcribes: the name that is stored with the transcript."""
        ...

    async def transcribe(self, audio: AudioFile, progress: ProgressCallback) -> TranscriptionResult: ...


@dataclass(frozen=True, slots=True)
class FindRequest:
    """What moments are to be found in. Lengths are seconds; an empty prompt means the built-in one.

    `words` and `segments` are in seconds of the video. `video` and `audio` are local files for finders that look and
    listen too; None where there is none. `scene_cuts` are the seconds at which the picture changes, as far as known.
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
    """A part of the video; times are seconds of the video."""

    start: float
    end: float
    title: str


@dataclass(frozen=True, slots=True)
class FindResult:
    """Moments in order of time, none overlapping another, all within the limits of the request.

    `model` is the name that the model gave itself, which is stored with each moment; `raw` is what it answered.
    """

    moments: Sequence[FoundMoment]
    model: str
    raw: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class ClipLink:
    """The clip of a moment as a model can be shown it: an address, or a `data:` URL."""

    url: str


@dataclass(frozen=True, slots=True)
class RefineRequest:
    """The moment that is to be refined, in seconds of the video, and the window of words around it.

    `words` are those of the window, in seconds of the video; the finder itself shifts them for a model that counts
    from the window's beginning, and shifts the answer back.
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
    """Better times of a moment, in seconds of the video, within its window."""

    start: float
    end: float
    model: str
    raw: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class PromptText:
    """What a finder asks with: the two texts of a `prompts` row, before anything of a video is in them."""

    user_prompt: str
    system_prompt: str  # a template: `{transcript}`, `{user_prompt}`, `{duration}` … stand for what changes by call


class MomentFinder(Protocol):
    """Raises what a `Transcriber` raises; a cancelled call ends at once."""

    @property
    def model(self) -> str:
        """Who answers, told before the call: the registry's name of a service, or that of the local engine."""
        ...

    @property
    def supports_video(self) -> bool: ...

    @property
    def is_local(self) -> bool:
        """Whether this machine answers, and no service."""
        ...

    @property
    def parameters(self) -> Mapping[str, float | int | None]:
        """`top_p` and `top_k` of the registry's entry, which belong to the generation config."""
        ...

    def find_prompt(self, prompt: str) -> PromptText:
        """Return the texts that `find` asks with, which are stored before it is called."""
        ...

    def refine_prompt(self, prompt: str, *, with_clip: bool) -> PromptText: ...

    async def find(self, request: FindRequest, progress: ProgressCallback) -> FindResult: ...

    async def refine(self, request: RefineRequest, progress: ProgressCallback) -> RefineResult: ...


class Models(Protocol):
    """The models that runs use, by their keys in the registry. Raises `ModelNotConfigured` for an unknown key."""

    async def get_transcriber(self, key: str) -> Transcriber: ...

    async def get_finder(self, key: str) -> MomentFinder: ...
