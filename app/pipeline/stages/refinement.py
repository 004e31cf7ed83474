"""Refines the moments of a video with a model: each original of a full run, or the one that was asked for."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.ai.protocols import Usage
from app.core.errors import RunLost, StageFailed, VideoDeleted
from app.models import Moment, Transcript
from app.models.run import RunType, Stage
from app.pipeline.context import RunContext
from app.pipeline.failures import first_of
from app.pipeline.families import find_originals, group_refined
from app.pipeline.refining import Done, Refiner, Target
from app.pipeline.saving import storable, usage_of
from app.pipeline.spoken import end_of
from app.pipeline.stage import Resource, StageWork
from app.repositories import MomentRepository, PipelineHistoryRepository, TranscriptRepository, VideoRepository

# Each moment has its own limit; this one ends what hangs all the same.
_LIMIT_SECONDS = 24 * 3600.0
_TOLD_REASONS = 5


@dataclass(frozen=True, slots=True)
class _Material:
    """What there is to refine; `done` are moments that this run has refined already."""

    transcript: Transcript
    duration_seconds: float
    targets: Sequence[Target]
    done: int


@dataclass(slots=True)
class _Tally:
    """How far it is; `reasons` say why moments failed, each once."""

    total: int
    successful: int
    failed: int = 0
    with_clip: int = 0
    usage: Usage = field(default_factory=Usage)
    models: set[str] = field(default_factory=set)
    reasons: dict[str, None] = field(default_factory=dict)

    def count(self, done: Done) -> None:
        self.successful += 1
        self.with_clip += done.with_clip
        self.usage += done.usage
        self.models.add(storable(done.model))

    def count_failure(self, error: StageFailed) -> None:
        self.failed += 1
        self.reasons[storable(str(error))] = None

    def report(self, context: RunContext) -> None:
        processed = self.successful + self.failed
        context.report(total=self.total, processed=processed, successful=self.successful, failed=self.failed)


async def _skip_reason(context: RunContext) -> str | None:
    if context.run.type is RunType.REFINEMENT:
        return None
    async with context.database.connect() as conn:
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
    refined = group_refined(moments)
    if not refined:
        return "No moments to refine"
    if context.run.request.override_existing_refinement or not all(refined.values()):
        return None
    return f"All moments are refined already ({len(refined)} moments)"


async def _work(context: RunContext) -> Mapping[str, Any]:
    material = await _read_material(context)
    finder = await context.models.get_finder(context.run.request.refinement_model)
    refiner = Refiner(context, finder, material.transcript, material.duration_seconds)
    tally = _Tally(len(material.targets) + material.done, material.done)
    tally.report(context)
    await _refine_all(context, refiner, material.targets, tally)
    if tally.failed and not tally.successful:
        raise StageFailed(next(iter(tally.reasons)))
    return _describe(tally)


async def _read_material(context: RunContext) -> _Material:
    async with context.database.connect() as conn:
        run = await PipelineHistoryRepository(conn).get(context.run.id)
        video = await VideoRepository(conn).get(context.run.video_id)
        transcript = await TranscriptRepository(conn).get_by_video(context.run.video_id)
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
    if run is None or video is None:
        raise VideoDeleted
    if transcript is None:
        raise StageFailed("Transcript not found. Please generate transcript first.")
    if context.run.type is RunType.REFINEMENT:
        targets = [] if run.total_moments_generated else [_find_subject(context, moments)]
        done = 1 - len(targets)
    else:
        targets, done = _list_targets(context, moments, run.created_at)
    return _Material(transcript, video.duration_seconds or end_of(transcript), targets, done)


def _find_subject(context: RunContext, moments: Sequence[Moment]) -> Target:
    for moment in moments:
        if moment.identifier == context.run.subject:
            original = find_originals(moments).get(moment.id)
            return Target(moment, original.id if original else None)
    raise StageFailed("The moment was deleted")


def _list_targets(context: RunContext, moments: Sequence[Moment], accepted_at: datetime) -> tuple[list[Target], int]:
    """Return the originals that are to be refined, and how many this run has refined already.

    Nothing else refines moments of the video while a full run is under way, so what is younger than the run is its.
    """
    refined = group_refined(moments)
    mine = {original for original, group in refined.items() if any(each.created_at > accepted_at for each in group)}
    if context.run.request.override_existing_refinement:
        missing = refined.keys() - mine
    else:
        missing = {original for original, group in refined.items() if not group}
    return [Target(moment, moment.id) for moment in moments if moment.id in missing], len(mine)


async def _refine_all(context: RunContext, refiner: Refiner, targets: Sequence[Target], tally: _Tally) -> None:
    """Refine several at once. One that fails does not stop the others."""
    waiting = deque(targets)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(context.run.request.refinement_parallel_workers, len(targets))):
                group.create_task(_refine_waiting(context, refiner, waiting, tally))
    except ExceptionGroup as errors:
        raise first_of(errors) from None


async def _refine_waiting(context: RunContext, refiner: Refiner, waiting: deque[Target], tally: _Tally) -> None:
    while waiting:
        try:
            tally.count(await refiner.refine(waiting.popleft()))
        except RunLost:
            raise
        except StageFailed as error:
            tally.count_failure(error)
        tally.report(context)


def _describe(tally: _Tally) -> Mapping[str, Any]:
    described: dict[str, Any] = {
        "total": tally.total,
        "successful": tally.successful,
        "failed": tally.failed,
        "video_included": tally.with_clip,
        "model": ", ".join(sorted(tally.models)),
        "usage": usage_of(tally.usage),
    }
    if tally.reasons:
        described["reason"] = "; ".join([*tally.reasons][:_TOLD_REASONS])
    return described


WORK = StageWork(Stage.REFINEMENT, _LIMIT_SECONDS, _skip_reason, _work, resource=Resource.REFINEMENT)
