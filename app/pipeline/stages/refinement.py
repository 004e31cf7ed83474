"""Refines the moments of a video with a model: each original of a full run, or the one that was asked for."""

import asyncio
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from app.ai.protocols import Usage
from app.core.errors import RunLost, StageFailed, VideoDeleted
from app.core.text import strip_unstorable
from app.database import Connection
from app.models import Moment, Transcript
from app.models.stages import RunType, Stage
from app.pipeline.context import RunContext
from app.pipeline.failures import first_error
from app.pipeline.model_answers import describe_usage
from app.pipeline.moment_refiner import Done, MomentRefiner, RefinementSkipped, Target, list_unchanged_ids
from app.pipeline.moments import find_originals, group_refinements
from app.pipeline.transcripts import end_of
from app.repositories import MomentRepository, PipelineHistoryRepository, TranscriptRepository, VideoRepository
from app.repositories.claimed_runs import ClaimedRunRepository

_TOLD_REASONS = 5
_IDS = "ids"  # in the result of the stage: the id that is reserved for what is refined from a moment, by its id


@dataclass(frozen=True, slots=True)
class _Material:
    """What there is to refine; `done` counts what this run has refined already, `unchanged` those of it whose times
    were exact."""

    transcript: Transcript
    duration_seconds: float
    targets: Sequence[Target]
    done: int
    unchanged: int


@dataclass(slots=True)
class _Tally:
    """How far it is; `reasons` say why moments failed, each once, and `kept` why others stay as they are."""

    total: int
    successful: int
    unchanged: int
    failed: int = 0
    with_clip: int = 0
    usage: Usage = field(default_factory=Usage)
    models: set[str] = field(default_factory=set)
    reasons: dict[str, None] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)

    def count(self, done: Done) -> None:
        self.successful += 1
        self.unchanged += done.is_unchanged
        self.with_clip += done.with_clip
        self.usage += done.usage
        self.models.add(strip_unstorable(done.model))

    def count_failure(self, error: StageFailed) -> None:
        self.failed += 1
        self.reasons[strip_unstorable(str(error))] = None

    def report(self, context: RunContext) -> None:
        processed = self.successful + self.failed + self.kept.total()
        context.report(total=self.total, processed=processed, successful=self.successful, failed=self.failed)


async def skip_reason(context: RunContext) -> str | None:
    if context.run.type is RunType.REFINEMENT:
        return None
    async with context.database.connect() as conn:
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
    refined = group_refinements(moments)
    if not refined:
        return "No moments to refine"
    if context.run.request.override_existing_refinement or not all(refined.values()):
        return None
    return f"All moments are refined already ({len(refined)} moments)"


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    material = await _read_material(context)
    finder = await context.models.get_finder(context.run.request.refinement_model)
    refiner = MomentRefiner(context, finder, material.transcript, material.duration_seconds)
    tally = _Tally(len(material.targets) + material.done, material.done, material.unchanged)
    tally.report(context)
    targets = await context.save(lambda conn: _reserve_ids(conn, context, material.targets))
    await _refine_all(context, refiner, targets, tally)
    if tally.failed and not tally.successful:
        raise StageFailed(next(iter(tally.reasons)))
    return _describe(tally)


async def _read_material(context: RunContext) -> _Material:
    async with context.database.connect() as conn:
        run = await PipelineHistoryRepository(conn).get(context.run.id)
        video = await VideoRepository(conn).get(context.run.video_id)
        transcript = await TranscriptRepository(conn).get_by_video(context.run.video_id)
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
        exact = await list_unchanged_ids(conn, context)
    if run is None or video is None:
        raise VideoDeleted
    if transcript is None:
        raise StageFailed("Transcript not found. Please generate transcript first.")
    if context.run.type is RunType.REFINEMENT:
        targets = [_find_subject(context, moments)] if run.total_moments_generated is None else []
        done = 1 - len(targets)
    else:
        targets, done = _list_targets(context, moments, run.created_at, exact)
    return _Material(transcript, video.duration_seconds or end_of(transcript), targets, done, len(exact))


async def _reserve_ids(conn: Connection, context: RunContext, targets: Sequence[Target]) -> list[Target]:
    """Return the targets in order of time with ids in that order, those that a worker before has reserved."""
    ordered = sorted(targets, key=lambda target: (target.moment.start_time, target.moment.id))
    claimed = ClaimedRunRepository(conn)
    reserved = (await claimed.get_result(context.run, Stage.REFINEMENT)).get(_IDS, {})
    missing = [target.moment.id for target in ordered if str(target.moment.id) not in reserved]
    ids = await MomentRepository(conn).reserve_ids(len(missing))
    reserved |= {str(moment_id): new for moment_id, new in zip(missing, ids, strict=True)}
    await claimed.add_result(context.run, Stage.REFINEMENT, {_IDS: reserved})
    return [replace(target, refined_id=reserved[str(target.moment.id)]) for target in ordered]


def _find_subject(context: RunContext, moments: Sequence[Moment]) -> Target:
    for moment in moments:
        if moment.identifier == context.run.subject:
            original = find_originals(moments).get(moment.id)
            return Target(moment, original.id if original else None)
    raise StageFailed("The moment was deleted")


def _list_targets(
    context: RunContext, moments: Sequence[Moment], accepted_at: datetime, exact: Collection[int]
) -> tuple[list[Target], int]:
    """Return the originals that are to be refined, and how many this run has refined already.

    Nothing else refines moments of the video while a full run is under way, so what is younger than the run is its.
    """
    refined = group_refinements(moments)
    mine = {original for original, group in refined.items() if any(each.created_at > accepted_at for each in group)}
    mine |= refined.keys() & set(exact)
    if context.run.request.override_existing_refinement:
        missing = refined.keys() - mine
    else:
        missing = {original for original, group in refined.items() if not group} - mine
    return [Target(moment, moment.id) for moment in moments if moment.id in missing], len(mine)


async def _refine_all(context: RunContext, refiner: MomentRefiner, targets: Sequence[Target], tally: _Tally) -> None:
    """Refine several at once. One that fails does not stop the others."""
    waiting = deque(targets)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(context.run.request.refinement_parallel_workers, len(targets))):
                group.create_task(_refine_waiting(context, refiner, waiting, tally))
    except ExceptionGroup as errors:
        raise first_error(errors) from None


async def _refine_waiting(context: RunContext, refiner: MomentRefiner, waiting: deque[Target], tally: _Tally) -> None:
    while waiting:
        try:
            tally.count(await refiner.refine(waiting.popleft()))
        except RunLost:
            raise
        except StageFailed as error:
            if isinstance(error, RefinementSkipped) and context.run.type is RunType.FULL:
                tally.kept[str(error)] += 1
            else:
                tally.count_failure(error)
        tally.report(context)


def _describe(tally: _Tally) -> Mapping[str, Any]:
    described: dict[str, Any] = {
        "total": tally.total,
        "successful": tally.successful,
        "failed": tally.failed,
        "video_included": tally.with_clip,
        "model": ", ".join(sorted(tally.models)),
        "usage": describe_usage(tally.usage),
    }
    if tally.unchanged:
        described["unchanged"] = tally.unchanged
    if tally.kept:
        described["kept"] = tally.kept.total()
    if reasons := _list_reasons(tally):
        described["reason"] = "; ".join(reasons)
    return described


def _list_reasons(tally: _Tally) -> list[str]:
    reasons = [*tally.reasons][:_TOLD_REASONS]
    if tally.unchanged and not reasons:
        reasons.append(_describe_unchanged(tally))
    return reasons + [_describe_kept(reason, count, tally.total) for reason, count in tally.kept.items()]


def _describe_unchanged(tally: _Tally) -> str:
    if tally.unchanged == tally.total:
        return "Times were exact already"
    return f"Times of {tally.unchanged} of {tally.total} moments were exact already"


def _describe_kept(reason: str, count: int, total: int) -> str:
    return reason if total == 1 else f"{reason} ({count} of {total} moments)"
