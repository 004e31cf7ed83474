"""The stage that refines moments with a model: each original of a full run, or one requested moment."""

import asyncio
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from app.ai.protocols import Usage
from app.core.errors import RunLost, StageFailed
from app.core.text import strip_unstorable
from app.database import Connection
from app.models import Moment, Transcript
from app.models.stages import RunType, Stage
from app.pipeline.context import RunContext
from app.pipeline.failures import unwrap_first_error
from app.pipeline.model_answers import serialize_model_usage
from app.pipeline.moment_refiner import (
    MomentRefiner,
    RefinementResult,
    RefinementSkipped,
    RefinementTarget,
    list_unchanged_moment_ids,
)
from app.pipeline.moments import group_refinements_by_original, map_moments_to_originals
from app.pipeline.transcripts import find_end_of_speech, get_run_video_and_transcript
from app.repositories import MomentRepository
from app.repositories.stages import ClaimedRunRepository

_MAX_REASONS = 5
_RESERVED_IDS_KEY = "ids"  # of the stage's result: the id reserved for the refinement of each moment


@dataclass(frozen=True, slots=True)
class _RefinementInputs:
    """Transcript, duration and moments to refine; `done` were refined before, `unchanged` of them to equal times."""

    transcript: Transcript
    duration_seconds: float
    targets: Sequence[RefinementTarget]
    done: int
    unchanged: int


@dataclass(slots=True)
class _RefinementCounts:
    """The progress of a run; `reasons` are the distinct reasons of failures, `skipped` counts those of skipped ones."""

    total: int
    successful: int
    unchanged: int
    failed: int = 0
    with_clip: int = 0
    usage: Usage = field(default_factory=Usage)
    models: set[str] = field(default_factory=set)
    reasons: dict[str, None] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)

    def add_result(self, result: RefinementResult) -> None:
        self.successful += 1
        self.unchanged += result.is_unchanged
        self.with_clip += result.with_clip
        self.usage += result.usage
        self.models.add(strip_unstorable(result.model))

    def add_failure(self, error: StageFailed) -> None:
        self.failed += 1
        self.reasons[strip_unstorable(str(error))] = None

    def report_to(self, context: RunContext) -> None:
        processed = self.successful + self.failed + self.skipped.total()
        context.report_progress(total=self.total, processed=processed, successful=self.successful, failed=self.failed)


async def skip_reason(context: RunContext) -> str | None:
    """Return why a full run has no moments to refine: none exist, or all are refined; else None."""
    if context.run.type is RunType.REFINEMENT:
        return None
    async with context.database.connect() as conn:
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
    refined = group_refinements_by_original(moments)
    if not refined:
        return "No moments to refine"
    if context.run.request.override_existing_refinement or not all(refined.values()):
        return None
    return f"All moments are refined already ({len(refined)} moments)"


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    """Refine the moments with a model, and return counts, the models and their usage."""
    inputs = await _read_refinement_inputs(context)
    finder = await context.models.get_finder(context.run.request.refinement_model)
    refiner = MomentRefiner(context, finder, inputs.transcript, inputs.duration_seconds)
    counts = _RefinementCounts(len(inputs.targets) + inputs.done, inputs.done, inputs.unchanged)
    counts.report_to(context)
    targets = await context.save_result(lambda conn: _reserve_refined_ids(conn, context, inputs.targets))
    await _refine_in_parallel(context, refiner, targets, counts)
    if counts.failed and not counts.successful:
        raise StageFailed(next(iter(counts.reasons)))
    return _make_refinement_result(counts)


async def _read_refinement_inputs(context: RunContext) -> _RefinementInputs:
    async with context.database.connect() as conn:
        run, video, transcript = await get_run_video_and_transcript(conn, context.run)
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
        unchanged_ids = await list_unchanged_moment_ids(conn, context)
    if context.run.type is RunType.REFINEMENT:  # of one moment
        targets = [_find_requested_moment(context, moments)] if run.total_moments_generated is None else []
        done = 1 - len(targets)
    else:
        targets, done = _list_originals_to_refine(context, moments, run.created_at, unchanged_ids)
    return _RefinementInputs(
        transcript, video.duration_seconds or find_end_of_speech(transcript), targets, done, len(unchanged_ids)
    )


async def _reserve_refined_ids(
    conn: Connection, context: RunContext, targets: Sequence[RefinementTarget]
) -> list[RefinementTarget]:
    """Return the targets in order of time with ids for their refined moments, the same in each attempt."""
    ordered = sorted(targets, key=lambda target: (target.moment.start_time, target.moment.id))
    claimed = ClaimedRunRepository(conn)
    reserved = (await claimed.get_stage_result(context.run, Stage.REFINEMENT)).get(_RESERVED_IDS_KEY, {})
    missing = [target.moment.id for target in ordered if str(target.moment.id) not in reserved]
    ids = await MomentRepository(conn).reserve_moment_ids(len(missing))
    reserved |= {str(moment_id): new for moment_id, new in zip(missing, ids, strict=True)}
    await claimed.merge_stage_result(context.run, Stage.REFINEMENT, {_RESERVED_IDS_KEY: reserved})
    return [replace(target, refined_id=reserved[str(target.moment.id)]) for target in ordered]


def _find_requested_moment(context: RunContext, moments: Sequence[Moment]) -> RefinementTarget:
    for moment in moments:
        if moment.identifier == context.run.subject:
            original = map_moments_to_originals(moments).get(moment.id)
            return RefinementTarget(moment, original.id if original else None)
    raise StageFailed("The moment was deleted")


def _list_originals_to_refine(
    context: RunContext, moments: Sequence[Moment], run_created_at: datetime, unchanged_ids: Collection[int]
) -> tuple[list[RefinementTarget], int]:
    """Return the originals to refine, and the number of those that this run has refined already."""
    refined = group_refinements_by_original(moments)
    refined_here = {  # only the full run refines moments meanwhile, so refinements younger than the run are its own
        original for original, group in refined.items() if any(each.created_at > run_created_at for each in group)
    }
    refined_here |= refined.keys() & set(unchanged_ids)
    if context.run.request.override_existing_refinement:
        missing = refined.keys() - refined_here
    else:
        missing = {original for original, group in refined.items() if not group} - refined_here
    return [RefinementTarget(moment, moment.id) for moment in moments if moment.id in missing], len(refined_here)


async def _refine_in_parallel(
    context: RunContext, refiner: MomentRefiner, targets: Sequence[RefinementTarget], counts: _RefinementCounts
) -> None:
    waiting = deque(targets)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(context.run.request.refinement_parallel_workers, len(targets))):
                group.create_task(_refine_until_none_waits(context, refiner, waiting, counts))
    except ExceptionGroup as errors:
        raise unwrap_first_error(errors) from None


async def _refine_until_none_waits(
    context: RunContext, refiner: MomentRefiner, waiting: deque[RefinementTarget], counts: _RefinementCounts
) -> None:
    while waiting:
        try:
            counts.add_result(await refiner.refine_moment(waiting.popleft()))
        except RunLost:
            raise
        except StageFailed as error:
            if isinstance(error, RefinementSkipped) and context.run.type is RunType.FULL:
                counts.skipped[str(error)] += 1
            else:
                counts.add_failure(error)
        counts.report_to(context)


def _make_refinement_result(counts: _RefinementCounts) -> Mapping[str, Any]:
    result: dict[str, Any] = {
        "total": counts.total,
        "successful": counts.successful,
        "failed": counts.failed,
        "video_included": counts.with_clip,
        "model": ", ".join(sorted(counts.models)),
        "usage": serialize_model_usage(counts.usage),
    }
    if counts.unchanged:
        result["unchanged"] = counts.unchanged
    if counts.skipped:
        result["kept"] = counts.skipped.total()
    if reasons := _list_refinement_reasons(counts):
        result["reason"] = "; ".join(reasons)
    return result


def _list_refinement_reasons(counts: _RefinementCounts) -> list[str]:
    reasons = [*counts.reasons][:_MAX_REASONS]
    if counts.unchanged and not reasons:
        times = (
            "Times" if counts.unchanged == counts.total else f"Times of {counts.unchanged} of {counts.total} moments"
        )
        reasons.append(f"{times} were exact already")
    if counts.total == 1:
        return [*reasons, *counts.skipped]
    return reasons + [f"{reason} ({count} of {counts.total} moments)" for reason, count in counts.skipped.items()]
