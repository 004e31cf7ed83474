"""Moments found and refined without a language model: topics of sentence embeddings, ranked and titled."""

import json
import time
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from app.ai.local.compute_thread import ComputationControl, ComputeThread
from app.ai.local.embeddings import FloatArray, SentenceEmbedder, load_embedder
from app.ai.local.moment_selection import (
    HOOKS,
    MomentEvidence,
    TimeRange,
    expand_sentence_to_limits,
    measure_loudness,
    pack_moments,
    score_moment,
)
from app.ai.local.titles import make_titles
from app.ai.local.topics import (
    SentenceSpan,
    SentenceUnit,
    TopicLimits,
    clean_words,
    make_sentence_units,
    segment_topics,
)
from app.ai.protocols import (
    FindRequest,
    FindResult,
    FoundMoment,
    ProgressCallback,
    PromptText,
    RefineRequest,
    RefineResult,
    Usage,
)
from app.ai.registry import LOCAL_MODEL_KEY

LOCAL_MODEL_NAME = f"{LOCAL_MODEL_KEY} (all-MiniLM-L6-v2)"

_FIND_DESCRIPTION = (
    "Found on this machine, without a language model: the sentences of the transcript become vectors, the video is "
    "divided where its topic changes, within the lengths and the counts asked for, and the strongest parts are kept: "
    "those that begin with a hook, that come near to what the user asked for ({user_prompt}), and that are spoken with "
    "energy. Titles are phrases of the transcript."
)
_REFINE_DESCRIPTION = (
    "Refined on this machine, without a language model: the moment begins where a sentence near its beginning does, "
    "and ends where one near its end does; sentences at its edges belong to it if they are about the same."
)
_FIND_DEFAULT = "Find the strongest moments, each about one topic."
_REFINE_DEFAULT = "Begin and end the moment with whole sentences that belong to it."
_EMBEDDING_SHARE = 0.8  # of the time is spent on embeddings


class LocalMomentFinder:
    """Finds and refines moments by sentence embeddings, one request at a time; the model is loaded on first use."""

    model = LOCAL_MODEL_NAME
    supports_video = False
    is_local = True
    parameters: Mapping[str, float | int | None] = {"top_p": None, "top_k": None}

    def __init__(self) -> None:
        self._thread = ComputeThread("moments")
        self._embedder: SentenceEmbedder | None = None

    def make_generation_prompt(self, prompt: str) -> PromptText:
        return PromptText(prompt or _FIND_DEFAULT, _FIND_DESCRIPTION)

    def make_refinement_prompt(self, prompt: str, *, with_clip: bool) -> PromptText:
        return PromptText(prompt or _REFINE_DEFAULT, _REFINE_DESCRIPTION)

    async def find(self, request: FindRequest, progress: ProgressCallback) -> FindResult:
        return await self._thread.run(lambda control: self._find_moments_in_thread(request, control), progress)

    async def refine(self, request: RefineRequest, progress: ProgressCallback) -> RefineResult:
        return await self._thread.run(lambda control: self._refine_moment_in_thread(request, control), progress)

    def _find_moments_in_thread(self, request: FindRequest, control: ComputationControl) -> FindResult:
        began = time.perf_counter()
        moments = self._find_moments(request, control)
        raw = json.dumps([{"start_time": each.start, "end_time": each.end, "title": each.title} for each in moments])
        return FindResult(moments, LOCAL_MODEL_NAME, raw, Usage(calls=1, seconds=time.perf_counter() - began))

    def _find_moments(self, request: FindRequest, control: ComputationControl) -> list[FoundMoment]:
        duration = request.duration_seconds
        sentences = make_sentence_units(request.words, request.segments, 0.0, duration, request.max_length)
        if not sentences or duration < request.min_length:
            return []
        embedder = self._load_embedder_once()
        evidence = self._collect_moment_evidence(request, sentences, embedder, control)
        limits = TopicLimits(request.min_length, request.max_length, request.min_count)
        parts = segment_topics(sentences, evidence.vectors, limits, control)
        times = [
            (sentences[part.first].start, sentences[part.last - 1].end)
            for part in _select_highest_scored_topics(parts, request, evidence)
        ]
        times = times if len(times) >= min(request.min_count, request.max_count) else _pack_more_moments(times, request)
        times = times or [_expand_highest_scored_sentence(evidence, request)][: request.max_count]
        texts = [
            [sentence.text for sentence in sentences if sentence.end > start and sentence.start < end]
            for start, end in times
        ]
        titles = make_titles(texts, [start for start, _ in times], embedder, control.check)
        return [FoundMoment(start, end, title) for (start, end), title in zip(times, titles, strict=True)]

    def _collect_moment_evidence(
        self,
        request: FindRequest,
        sentences: Sequence[SentenceUnit],
        embedder: SentenceEmbedder,
        control: ComputationControl,
    ) -> MomentEvidence:
        encoded = embedder.encode(
            [sentence.text for sentence in sentences], lambda done: control.report(done * _EMBEDDING_SHARE)
        )
        return MomentEvidence(
            sentences=sentences,
            vectors=encoded,
            hooks=embedder.encode(HOOKS),
            prompt=embedder.encode([request.prompt])[0] if request.prompt else None,
            loudness=measure_loudness(request.audio, control),
            scene_cuts=request.scene_cuts,
        )

    def _refine_moment_in_thread(self, request: RefineRequest, control: ComputationControl) -> RefineResult:
        began = time.perf_counter()
        start, end = self._refine_times(request, control)
        raw = json.dumps({"start_time": start, "end_time": end})
        return RefineResult(start, end, LOCAL_MODEL_NAME, raw, Usage(calls=1, seconds=time.perf_counter() - began))

    def _refine_times(self, request: RefineRequest, control: ComputationControl) -> TimeRange:
        first, last = max(request.window_start, 0.0), min(request.window_end, request.duration_seconds)
        sentences = make_sentence_units(request.words, (), first, last, last - first)
        start, end = max(request.moment.start, first), min(request.moment.end, last)
        if not sentences:
            return start, end
        encoded = self._load_embedder_once().encode([sentence.text for sentence in sentences], control.report)
        return refine_boundaries(sentences, encoded, start, end)

    def _load_embedder_once(self) -> SentenceEmbedder:
        if self._embedder is None:
            self._embedder = load_embedder()
        return self._embedder


def _select_highest_scored_topics(
    topics: Sequence[SentenceSpan], request: FindRequest, evidence: MomentEvidence
) -> list[SentenceSpan]:
    ranked = sorted(topics, key=lambda part: (-score_moment(part, evidence), part.first))
    return sorted(ranked[: request.max_count], key=lambda part: part.first)


def _pack_more_moments(times: list[TimeRange], request: FindRequest) -> list[TimeRange]:
    """Return more, minimum-length moments if `times` are too few, and `times` otherwise."""
    fine = make_sentence_units(request.words, request.segments, 0.0, request.duration_seconds, request.min_length)
    packed = pack_moments(fine, request, min(request.min_count, request.max_count))
    return packed if len(packed) > max(len(times), 1) else times


def _expand_highest_scored_sentence(evidence: MomentEvidence, request: FindRequest) -> TimeRange:
    indices = range(len(evidence.sentences))
    strongest = max(indices, key=lambda index: score_moment(SentenceSpan(index, index + 1), evidence))
    words = clean_words(request.words, 0.0, request.duration_seconds)
    return expand_sentence_to_limits(evidence.sentences[strongest], evidence.sentences, words, request)


_MAX_MOVE_SECONDS = (2.0, 10.0)  # lower and upper bound of the largest move
_MOVE_SHARE = 0.34  # of the moment's length, the largest move within these bounds
_MIN_LENGTH_SHARE = 0.8  # of the moment's length that is kept
_MOVE_COST = 0.015  # per second
_INSIDE_WEIGHT = 0.35  # of the moment's own sentences in the usual similarity; the rest is the window's
_EPSILON = 1e-6


def refine_boundaries(
    sentences: Sequence[SentenceUnit], vectors: FloatArray, start: float, end: float
) -> tuple[float, float]:
    """Return the best sentence boundaries near those of a moment, in seconds; needs at least one sentence.

    A sentence belongs to the moment if it is more similar to the moment's mean embedding than usual in this window.
    Without sentences that are long enough, the times stay as they are.
    """
    belonging = _measure_topic_affinity(sentences, vectors, start, end)
    totals = np.concatenate(([0.0], np.cumsum(belonging)))
    near = min(max((end - start) * _MOVE_SHARE, _MAX_MOVE_SECONDS[0]), _MAX_MOVE_SECONDS[1])
    firsts = _indices_of_nearest_times([sentence.start for sentence in sentences], start, near)
    lasts = _indices_of_nearest_times([sentence.end for sentence in sentences], end, near)
    least = (end - start) * _MIN_LENGTH_SHARE
    pairs = [pair for pair in product(firsts, lasts) if sentences[pair[1]].end - sentences[pair[0]].start >= least]
    if not pairs:
        return start, end

    def boundary_score(pair: tuple[int, int]) -> float:
        first, last = pair
        moved = abs(sentences[first].start - start) + abs(sentences[last].end - end)
        return float(totals[last + 1] - totals[first]) - _MOVE_COST * moved

    first, last = max(pairs, key=boundary_score)
    return sentences[first].start, sentences[last].end


def _measure_topic_affinity(
    sentences: Sequence[SentenceUnit], vectors: FloatArray, start: float, end: float
) -> FloatArray:
    """Return for each sentence how strongly it belongs to the moment (above 0) or not (below 0)."""
    weights = np.array([sentence.weight for sentence in sentences], np.float32)
    weights /= weights.mean()
    inside = (
        np.array([max(min(sentence.end, end) - max(sentence.start, start), 0.0) for sentence in sentences], np.float32)
        + _EPSILON
    )
    middle = (vectors * (weights * inside)[:, None]).sum(axis=0)
    nearness = vectors @ middle / max(float(np.linalg.norm(middle)), _EPSILON)
    usual = _INSIDE_WEIGHT * np.average(nearness, weights=inside) + (1 - _INSIDE_WEIGHT) * nearness.mean()
    return np.asarray((nearness - usual) * weights)


def _indices_of_nearest_times(times: Sequence[float], target: float, max_distance: float) -> list[int]:
    indices = sorted(range(len(times)), key=lambda index: (abs(times[index] - target), index))
    nearer = [index for index in indices if abs(times[index] - target) <= max_distance]
    return nearer or [index for index in indices[:1] if abs(times[index] - target) <= _MAX_MOVE_SECONDS[1]]
