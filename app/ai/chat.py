"""A moment finder that asks an OpenAI-compatible chat completion service."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any, Generic, TypeVar

from app.ai.answers import Unreadable, read_moments, read_times
from app.ai.chunks import split_segments
from app.ai.completions import ChatService, Completion, Message
from app.ai.patience import try_thrice
from app.ai.prompts import FIND_SCHEMA, REFINE_SCHEMA, find_prompt, refine_prompt, render_find, render_refine
from app.ai.protocols import (
    Clip,
    FindRequest,
    Found,
    FoundMoment,
    Progress,
    PromptText,
    Refined,
    RefineRequest,
    Segment,
    Usage,
)
from app.ai.registry import ModelConfig
from app.ai.validation import choose_moments, place_times, read_moment
from app.core.errors import ModelAnswerInvalid

T = TypeVar("T")

_QUOTED_CHARACTERS = 4000  # of an answer that the model is shown once more
_TOLD_REASONS = 5


@dataclass(frozen=True, slots=True)
class _Question(Generic[T]):
    """What is asked. `read` returns what an answer says; its `Unreadable` is told to the model, once."""

    operation: str
    content: str | Sequence[Mapping[str, Any]]
    temperature: float
    schema: Mapping[str, Any]
    read: Callable[[str], T]


@dataclass(frozen=True, slots=True)
class _Answered(Generic[T]):
    value: T
    model: str
    raw: str
    usage: Usage


class ChatFinder:
    """Finds and refines moments; `key` is the entry's key in the registry."""

    is_local = False

    def __init__(self, key: str, config: ModelConfig, service: ChatService) -> None:
        self._key = key
        self._config = config
        self._service = service

    @property
    def model(self) -> str:
        return self._config.name

    @property
    def supports_video(self) -> bool:
        return self._config.supports_video

    @property
    def parameters(self) -> Mapping[str, float | int | None]:
        return {"top_p": self._config.top_p, "top_k": self._config.top_k}

    def find_prompt(self, prompt: str) -> PromptText:
        return find_prompt(self._key, self._config, prompt)

    def refine_prompt(self, prompt: str, *, with_clip: bool) -> PromptText:
        return refine_prompt(self._key, self._config, prompt, with_clip=with_clip and self.supports_video)

    async def find(self, request: FindRequest, progress: Progress) -> Found:
        """Ask about the transcript, a long one in parts, of which each has to be answered.

        Where nothing is said, nothing is asked or found.
        """
        parts = await asyncio.to_thread(lambda: list(split_segments(request.segments, request.max_length)))
        share = replace(request, min_count=-(-request.min_count // len(parts))) if parts else request
        answers: list[_Answered[Sequence[FoundMoment]]] = []
        for part in parts:
            answers.append(await self._ask(self._find_question(share, part), is_one_of_many=len(parts) > 1))
            progress(len(answers) / len(parts))
        ranked = [moment for row in zip_longest(*(each.value for each in answers)) for moment in row if moment]
        return Found(
            choose_moments(ranked, request.max_count),
            answers[-1].model if answers else self.model,
            "\n\n".join(each.raw for each in answers),
            sum((each.usage for each in answers), Usage()),
        )

    def _find_question(self, request: FindRequest, part: Sequence[Segment]) -> _Question[Sequence[FoundMoment]]:
        text = render_find(self.find_prompt(request.prompt), request, part)
        return _Question("find", text, request.temperature, FIND_SCHEMA, lambda answer: _read_found(answer, request))

    async def refine(self, request: RefineRequest, progress: Progress) -> Refined:
        """Ask in the window's own time; the answer comes back in that of the video."""
        clip = request.clip if self.supports_video else None
        text = render_refine(self.refine_prompt(request.prompt, with_clip=clip is not None), request)
        content = _with_clip(text, clip) if clip else text
        question = _Question(
            "refine", content, request.temperature, REFINE_SCHEMA, lambda answer: _read_refined(answer, request)
        )
        answer = await self._ask(question)
        progress(1.0)
        return Refined(*answer.value, answer.model, answer.raw, answer.usage)

    async def _ask(self, question: _Question[T], *, is_one_of_many: bool = False) -> _Answered[T]:
        """Ask, and where the answer cannot be used, once more with what was wrong. Raises `ModelAnswerInvalid`."""
        messages: list[Message] = [{"role": "user", "content": question.content}]
        raw: list[str] = []
        usage = Usage()
        reason = ""
        for _ in range(2):
            call = partial(self._complete, question, messages, raw)
            answer = await (try_thrice(call) if is_one_of_many else call())
            raw.append(answer.text)
            usage += answer.usage
            try:
                return _Answered(question.read(answer.text), answer.model, "\n\n".join(raw), usage)
            except Unreadable as error:
                reason = f"{error}, because it was cut off" if answer.is_cut else str(error)
            messages = [*messages[:1], *_correction(answer.text, reason)]
        raise ModelAnswerInvalid(f"{self.model} gave no answer that can be used: {reason}", "\n\n".join(raw))

    async def _complete(self, question: _Question[T], messages: Sequence[Message], before: Sequence[str]) -> Completion:
        """Ask once; what cannot even be read is kept with what was answered `before`."""
        try:
            return await self._service.complete(question.operation, messages, question.temperature, question.schema)
        except ModelAnswerInvalid as error:
            raise ModelAnswerInvalid(str(error), "\n\n".join([*before, error.raw])) from None


def _with_clip(text: str, clip: Clip) -> Sequence[Mapping[str, Any]]:
    return [{"type": "video_url", "video_url": {"url": clip.url}}, {"type": "text", "text": text}]


def _correction(answer: str, reason: str) -> list[Message]:
    """Return what is said after an answer that cannot be used."""
    return [
        {"role": "assistant", "content": answer[-_QUOTED_CHARACTERS:] or "(nothing)"},
        {"role": "user", "content": f"That cannot be used: {reason}. Answer again, as you were asked to at first."},
    ]


def _read_found(answer: str, request: FindRequest) -> Sequence[FoundMoment]:
    """Return the moments of an answer that can be used, in its order. One that says there are none is right."""
    items = read_moments(answer)
    read = [read_moment(item, request) for item in items]
    moments = [each for each in read if isinstance(each, FoundMoment)]
    if items and not moments:
        raise Unreadable(_list_reasons(each for each in read if isinstance(each, str)))
    return moments


def _list_reasons(reasons: Any) -> str:
    told = [f"moment {number}: {reason}" for number, reason in enumerate(reasons, 1)]
    more = f"; and {len(told) - _TOLD_REASONS} more" if len(told) > _TOLD_REASONS else ""
    return "; ".join(told[:_TOLD_REASONS]) + more


def _read_refined(answer: str, request: RefineRequest) -> tuple[float, float]:
    placed = place_times(*read_times(answer), request)
    if isinstance(placed, str):
        raise Unreadable(placed)
    return placed
