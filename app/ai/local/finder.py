"""Moments found and refined without a language model: topics of sentence vectors, ranked and titled."""

import json
import time
from collections.abc import Mapping, Sequence

from app.ai.local.packing import pack_moments
from app.ai.local.ranking import HOOKS, Evidence, measure_loudness, rate_moment
from app.ai.local.refinement import refine_times
from app.ai.local.threads import Control, OneThread
from app.ai.local.titles import make_titles
from app.ai.local.topics import Limits, Part, find_topics
from app.ai.local.units import Unit, make_units, tidy_words
from app.ai.local.vectors import SentenceVectors, load_vectors
from app.ai.local.widening import Times, widen
from app.ai.protocols import FindRequest, Found, FoundMoment, Progress, PromptText, Refined, RefineRequest, Usage
from app.ai.registry import LOCAL

MODEL = f"{LOCAL} (all-MiniLM-L6-v2)"

_FIND = (
    "Found on this machine, without a language model: the sentences of the transcript become vectors, the video is "
    "divided where its topic changes, within the lengths and the counts asked for, and the strongest parts are kept: "
    "those that begin with a hook, that come near to what the user asked for ({user_prompt}), and that are spoken with "
    "energy. Titles are phrases of the transcript."
)
_REFINE = (
    "Refined on this machine, without a language model: the moment begins where a sentence near its beginning does, "
    "and ends where one near its end does; sentences at its edges belong to it if they are about the same."
)
_FIND_DEFAULT = "Find the strongest moments, each about one topic."
_REFINE_DEFAULT = "Begin and end the moment with whole sentences that belong to it."
_ENCODED = 0.8  # of the time that finding moments takes is over when the sentences are vectors


class LocalFinder:
    """Does one request at a time; the model is loaded when it is first needed, and kept."""

    model = MODEL
    supports_video = False
    is_local = True
    parameters: Mapping[str, float | int | None] = {"top_p": None, "top_k": None}

    def __init__(self) -> None:
        self._thread = OneThread("moments")
        self._vectors: SentenceVectors | None = None

    def find_prompt(self, prompt: str) -> PromptText:
        return PromptText(prompt or _FIND_DEFAULT, _FIND)

    def refine_prompt(self, prompt: str, *, with_clip: bool) -> PromptText:
        return PromptText(prompt or _REFINE_DEFAULT, _REFINE)

    async def find(self, request: FindRequest, progress: Progress) -> Found:
        return await self._thread.run(lambda control: self._find(request, control), progress)

    async def refine(self, request: RefineRequest, progress: Progress) -> Refined:
        return await self._thread.run(lambda control: self._refine(request, control), progress)

    def _find(self, request: FindRequest, control: Control) -> Found:
        began = time.perf_counter()
        moments = self._find_moments(request, control)
        raw = json.dumps([{"start_time": each.start, "end_time": each.end, "title": each.title} for each in moments])
        return Found(moments, MODEL, raw, Usage(calls=1, seconds=time.perf_counter() - began))

    def _find_moments(self, request: FindRequest, control: Control) -> list[FoundMoment]:
        duration = request.duration_seconds
        units = make_units(request.words, request.segments, 0.0, duration, request.max_length)
        if not units or duration < request.min_length:
            return []
        vectors = self._load()
        evidence = self._weigh(request, units, vectors, control)
        limits = Limits(request.min_length, request.max_length, request.min_count)
        parts = find_topics(units, evidence.vectors, limits, control)
        times = [(units[part.first].start, units[part.last - 1].end) for part in _keep(parts, request, evidence)]
        times = times if len(times) >= min(request.min_count, request.max_count) else _add_moments(times, request)
        times = times or [_widen(evidence, request)][: request.max_count]
        texts = [[unit.text for unit in units if unit.end > start and unit.start < end] for start, end in times]
        titles = make_titles(texts, [start for start, _ in times], vectors, control.check)
        return [FoundMoment(start, end, title) for (start, end), title in zip(times, titles, strict=True)]

    def _weigh(
        self, request: FindRequest, units: Sequence[Unit], vectors: SentenceVectors, control: Control
    ) -> Evidence:
        encoded = vectors.encode([unit.text for unit in units], lambda done: control.tell(done * _ENCODED))
        return Evidence(
            units=units,
            vectors=encoded,
            hooks=vectors.encode(HOOKS),
            prompt=vectors.encode([request.prompt])[0] if request.prompt else None,
            loudness=measure_loudness(request.audio, control),
            scene_cuts=request.scene_cuts,
        )

    def _refine(self, request: RefineRequest, control: Control) -> Refined:
        began = time.perf_counter()
        start, end = self._refine_times(request, control)
        raw = json.dumps({"start_time": start, "end_time": end})
        return Refined(start, end, MODEL, raw, Usage(calls=1, seconds=time.perf_counter() - began))

    def _refine_times(self, request: RefineRequest, control: Control) -> Times:
        first, last = max(request.window_start, 0.0), min(request.window_end, request.duration_seconds)
        units = make_units(request.words, (), first, last, last - first)
        start, end = max(request.moment.start, first), min(request.moment.end, last)
        if not units:
            return start, end
        encoded = self._load().encode([unit.text for unit in units], control.tell)
        return refine_times(units, encoded, start, end)

    def _load(self) -> SentenceVectors:
        if self._vectors is None:
            self._vectors = load_vectors()
        return self._vectors


def _keep(parts: Sequence[Part], request: FindRequest, evidence: Evidence) -> list[Part]:
    """Return the strongest of the parts, as many as are asked for, in order."""
    ranked = sorted(parts, key=lambda part: (-rate_moment(part, evidence), part.first))
    return sorted(ranked[: request.max_count], key=lambda part: part.first)


def _add_moments(times: list[Times], request: FindRequest) -> list[Times]:
    """Return moments of the least length, as many as there should be at least, where that makes more of them."""
    fine = make_units(request.words, request.segments, 0.0, request.duration_seconds, request.min_length)
    packed = pack_moments(fine, request, min(request.min_count, request.max_count))
    return packed if len(packed) > max(len(times), 1) else times


def _widen(evidence: Evidence, request: FindRequest) -> Times:
    """Return a moment that begins with the strongest sentence, where no sentences alone fit the limits."""
    places = range(len(evidence.units))
    strongest = max(places, key=lambda place: rate_moment(Part(place, place + 1), evidence))
    words = tidy_words(request.words, 0.0, request.duration_seconds)
    return widen(evidence.units[strongest], evidence.units, words, request)
