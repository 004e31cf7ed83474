"""Moments found and refined by an OpenAI-compatible chat completion service, a long transcript in chunks."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any, Generic, TypeVar

from app.ai.completions import ChatClient, ChatCompletion, Message
from app.ai.model_output import (
    UnusableOutput,
    parse_moments,
    parse_refined_times,
    select_moments,
    to_moment_or_rejection_reason,
    window_to_video_times_or_reason,
)
from app.ai.prompts import (
    FIND_SCHEMA,
    REFINE_SCHEMA,
    build_find_prompt,
    build_refine_prompt,
    render_find_prompt,
    render_refine_prompt,
)
from app.ai.protocols import (
    ClipLink,
    FindRequest,
    FindResult,
    FoundMoment,
    ProgressCallback,
    PromptText,
    RefineRequest,
    RefineResult,
    Segment,
    Usage,
)
from app.ai.registry import ModelConfig
from app.ai.service import retry_transient_failures
from app.core.errors import ModelAnswerInvalid

T = TypeVar("T")

_MAX_QUOTED_CHARACTERS = 4000  # of an unusable answer, quoted in the retry
_MAX_REASONS = 5


@dataclass(frozen=True, slots=True)
class _ModelQuery(Generic[T]):
    """A query. `read` parses the answer; the text of its `UnusableOutput` is sent to the model for one retry."""

    operation: str
    content: str | Sequence[Mapping[str, Any]]
    temperature: float
    schema: Mapping[str, Any]
    read: Callable[[str], T]


@dataclass(frozen=True, slots=True)
class _QueryResult(Generic[T]):
    """The parsed answer to a query, and its raw text with those of earlier attempts."""

    value: T
    model: str
    raw: str
    usage: Usage


class ChatMomentFinder:
    """Finds and refines moments by chat completions; `key` is the model's key in the registry."""

    is_local = False

    def __init__(self, key: str, config: ModelConfig, service: ChatClient) -> None:
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

    def make_generation_prompt(self, prompt: str) -> PromptText:
        return build_find_prompt(self._key, self._config, prompt)

    def make_refinement_prompt(self, prompt: str, *, with_clip: bool) -> PromptText:
        return build_refine_prompt(self._key, self._config, prompt, with_clip=with_clip and self.supports_video)

    async def find(self, request: FindRequest, progress: ProgressCallback) -> FindResult:
        """Find moments chunk by chunk, each of which must be answered; an empty transcript needs no call."""
        chunks = await asyncio.to_thread(lambda: list(split_segments_into_chunks(request.segments, request.max_length)))
        chunk_request = replace(request, min_count=-(-request.min_count // len(chunks))) if chunks else request
        answers: list[_QueryResult[Sequence[FoundMoment]]] = []
        for chunk in chunks:
            answers.append(
                await self._query_model(self._make_query_for_chunk(chunk_request, chunk), is_chunk=len(chunks) > 1)
            )
            progress(len(answers) / len(chunks))
        ranked = [moment for row in zip_longest(*(each.value for each in answers)) for moment in row if moment]
        return FindResult(
            select_moments(ranked, request.max_count),
            answers[-1].model if answers else self.model,
            "\n\n".join(each.raw for each in answers),
            sum((each.usage for each in answers), Usage()),
        )

    def _make_query_for_chunk(
        self, request: FindRequest, chunk: Sequence[Segment]
    ) -> _ModelQuery[Sequence[FoundMoment]]:
        text = render_find_prompt(self.make_generation_prompt(request.prompt), request, chunk)
        return _ModelQuery(
            "find", text, request.temperature, FIND_SCHEMA, lambda answer: _parse_found_moments(answer, request)
        )

    async def refine(self, request: RefineRequest, progress: ProgressCallback) -> RefineResult:
        """Refine a moment. The model sees times relative to the window; the result has times of the video."""
        clip = request.clip if self.supports_video else None
        text = render_refine_prompt(self.make_refinement_prompt(request.prompt, with_clip=clip is not None), request)
        content = _build_message_content(text, clip) if clip else text
        query = _ModelQuery(
            "refine", content, request.temperature, REFINE_SCHEMA, lambda answer: _parse_refined_moment(answer, request)
        )
        answer = await self._query_model(query)
        progress(1.0)
        return RefineResult(*answer.value, answer.model, answer.raw, answer.usage)

    async def _query_model(self, query: _ModelQuery[T], *, is_chunk: bool = False) -> _QueryResult[T]:
        """Send a query, and once more with the reason if the answer is unusable. Raises `ModelAnswerInvalid`."""
        messages: list[Message] = [{"role": "user", "content": query.content}]
        raw: list[str] = []
        usage = Usage()
        reason = ""
        for _ in range(2):
            call = partial(self._complete_query, query, messages, raw)
            answer = await (retry_transient_failures(call) if is_chunk else call())
            raw.append(answer.text)
            usage += answer.usage
            try:
                return _QueryResult(query.read(answer.text), answer.model, "\n\n".join(raw), usage)
            except UnusableOutput as error:
                reason = f"{error}, because it was cut off" if answer.is_truncated else str(error)
            messages = [*messages[:1], *_make_correction_messages(answer.text, reason)]
        raise ModelAnswerInvalid(f"{self.model} gave no answer that can be used: {reason}", "\n\n".join(raw))

    async def _complete_query(
        self, query: _ModelQuery[T], messages: Sequence[Message], previous: Sequence[str]
    ) -> ChatCompletion:
        """Send a query once; add the `previous` answers to the error for an unreadable one."""
        try:
            return await self._service.complete(query.operation, messages, query.temperature, query.schema)
        except ModelAnswerInvalid as error:
            raise ModelAnswerInvalid(str(error), "\n\n".join([*previous, error.raw])) from None


def _build_message_content(text: str, clip: ClipLink) -> Sequence[Mapping[str, Any]]:
    return [{"type": "video_url", "video_url": {"url": clip.url}}, {"type": "text", "text": text}]


def _make_correction_messages(answer: str, reason: str) -> list[Message]:
    return [
        {"role": "assistant", "content": answer[-_MAX_QUOTED_CHARACTERS:] or "(nothing)"},
        {"role": "user", "content": f"That cannot be used: {reason}. Answer again, as you were asked to at first."},
    ]


def _parse_found_moments(answer: str, request: FindRequest) -> Sequence[FoundMoment]:
    """Return the valid moments of an answer in its order; an empty list is a valid answer."""
    items = parse_moments(answer)
    read = [to_moment_or_rejection_reason(item, request) for item in items]
    moments = [each for each in read if isinstance(each, FoundMoment)]
    if items and not moments:
        raise UnusableOutput(_summarize_rejection_reasons(each for each in read if isinstance(each, str)))
    return moments


def _summarize_rejection_reasons(reasons: Any) -> str:
    listed = [f"moment {number}: {reason}" for number, reason in enumerate(reasons, 1)]
    more = f"; and {len(listed) - _MAX_REASONS} more" if len(listed) > _MAX_REASONS else ""
    return "; ".join(listed[:_MAX_REASONS]) + more


def _parse_refined_moment(answer: str, request: RefineRequest) -> tuple[float, float]:
    times = window_to_video_times_or_reason(*parse_refined_times(answer), request)
    if isinstance(times, str):
        raise UnusableOutput(times)
    return times


# Servers do not report their context length. At four characters per token these are 30,000 tokens: with an answer of
# 15,000 they fit into 64,000, the least of models with long contexts. Four hours have about 200,000 characters.
MAX_CHUNK_CHARACTERS = 120_000

_LINE_CHARACTERS = 12  # time, brackets and line break


def split_segments_into_chunks(
    segments: Sequence[Segment], overlap_seconds: float, max_characters: int = MAX_CHUNK_CHARACTERS
) -> Iterator[Sequence[Segment]]:
    """Yield runs of segments whose transcript lines have at most `max_characters`, at least one segment each.

    Neighbours overlap by `overlap_seconds`, but at most by half of the first one, so that a moment at a border is whole
    in one of them.
    """
    start = 0
    while start < len(segments):
        end = _find_chunk_end(segments, start, max_characters)
        yield segments[start:end]
        if end == len(segments):
            return
        start = _find_next_chunk_start(segments, start, end, overlap_seconds)


def _find_chunk_end(segments: Sequence[Segment], start: int, max_characters: int) -> int:
    left = max_characters
    for index in range(start, len(segments)):
        left -= len(segments[index].text) + _LINE_CHARACTERS
        if left < 0:
            return max(index, start + 1)
    return len(segments)


def _find_next_chunk_start(segments: Sequence[Segment], start: int, end: int, overlap_seconds: float) -> int:
    next_start = end
    earliest = max(start + 1, (start + end + 1) // 2)
    while next_start > earliest and segments[next_start - 1].start >= segments[end].start - overlap_seconds:
        next_start -= 1
    return next_start
