"""The stage that refines moments with a model: each original of a full run, or one requested moment."""

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
from app.pipeline.moment_refiner import (
    MomentRefiner,
    RefinementResult,
    RefinementSkipped,
    RefinementTarget,
    list_unchanged_ids,
)
from app.pipeline.moments import find_originals, group_refinements
from app.pipeline.transcripts import find_end_of_speech
from app.repositories import MomentRepository, RunRepository, TranscriptRepository, VideoRepository
from app.repositories.stages import ClaimedRunRepository

_MAX_REASONS = 5
_RESERVED_IDS_KEY = "ids"  # of the stage's result: the id reserved for the refinement of each moment


@dataclass(frozen=True, slots=True)
class _RefinementInputs:
    """The moments to refine; `done` were refined before in this run, and `unchanged` of them kept their times."""

    transcript: Transcript
    duration_seconds: float
    targets: Sequence[RefinementTarget]
    done: int
    unchanged: int


@dataclass(slots=True)
class _RefinementCounts:
    """The counts of a run; `reasons` are the distinct reasons of failures, `kept` those of skipped refinements."""

    total: int
    successful: int
    unchanged: int
    failed: int = 0
    with_clip: int = 0
    usage: Usage = field(default_factory=Usage)
    models: set[str] = field(default_factory=set)
    reasons: dict[str, None] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)

    def count(self, done: RefinementResult) -> None:
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
        context.report_progress(total=self.total, processed=processed, successful=self.successful, failed=self.failed)


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
    inputs = await _read_refinement_inputs(context)
    finder = await context.models.get_finder(context.run.request.refinement_model)
    refiner = MomentRefiner(context, finder, inputs.transcript, inputs.duration_seconds)
    counts = _RefinementCounts(len(inputs.targets) + inputs.done, inputs.done, inputs.unchanged)
    counts.report(context)
    targets = await context.save_result(lambda conn: _reserve_ids(conn, context, inputs.targets))
    await _refine_all(context, refiner, targets, counts)
    if counts.failed and not counts.successful:
        raise StageFailed(next(iter(counts.reasons)))
    return _make_result(counts)


async def _read_refinement_inputs(context: RunContext) -> _RefinementInputs:
    async with context.database.connect() as conn:
        run = await RunRepository(conn).get(context.run.id)
        video = await VideoRepository(conn).get(context.run.video_id)
        transcript = await TranscriptRepository(conn).get_by_video(context.run.video_id)
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
        exact = await list_unchanged_ids(conn, context)
    if run is None or video is None:
        raise VideoDeleted
    if transcript is None:
        raise StageFailed("Transcript not found. Please generate transcript first.")
    if context.run.type is RunType.REFINEMENT:
        targets = [_find_requested_moment(context, moments)] if run.total_moments_generated is None else []
        done = 1 - len(targets)
    else:
        targets, done = _list_targets(context, moments, run.created_at, exact)
    return _RefinementInputs(
        transcript, video.duration_seconds or find_end_of_speech(transcript), targets, done, len(exact)
    )


async def _reserve_ids(
    conn: Connection, context: RunContext, targets: Sequence[RefinementTarget]
) -> list[RefinementTarget]:
    """Return the targets in order of time with the ids for their refinements, those of earlier attempts again."""
    ordered = sorted(targets, key=lambda target: (target.moment.start_time, target.moment.id))
    claimed = ClaimedRunRepository(conn)
    reserved = (await claimed.get_stage_result(context.run, Stage.REFINEMENT)).get(_RESERVED_IDS_KEY, {})
    missing = [target.moment.id for target in ordered if str(target.moment.id) not in reserved]
    ids = await MomentRepository(conn).reserve_moment_ids(len(missing))
    reserved |= {str(moment_id): new for moment_id, new in zip(missing, ids, strict=True)}
    await claimed.add_stage_result(context.run, Stage.REFINEMENT, {_RESERVED_IDS_KEY: reserved})
    return [replace(target, refined_id=reserved[str(target.moment.id)]) for target in ordered]


def _find_requested_moment(context: RunContext, moments: Sequence[Moment]) -> RefinementTarget:
    for moment in moments:
        if moment.identifier == context.run.subject:
            original = find_originals(moments).get(moment.id)
            return RefinementTarget(moment, original.id if original else None)
    raise StageFailed("The moment was deleted")


def _list_targets(
    context: RunContext, moments: Sequence[Moment], accepted_at: datetime, exact: Collection[int]
) -> tuple[list[RefinementTarget], int]:
    """Return the originals to refine, and the number of those that this run has refined already.

    Only the full run refines moments of the video meanwhile, so refinements younger than the run are its own.
    """
    refined = group_refinements(moments)
    refined_here = {
        original for original, group in refined.items() if any(each.created_at > accepted_at for each in group)
    }
    refined_here |= refined.keys() & set(exact)
    if context.run.request.override_existing_refinement:
        missing = refined.keys() - refined_here
    else:
        missing = {original for original, group in refined.items() if not group} - refined_here
    return [RefinementTarget(moment, moment.id) for moment in moments if moment.id in missing], len(refined_here)


async def _refine_all(
    context: RunContext, refiner: MomentRefiner, targets: Sequence[RefinementTarget], counts: _RefinementCounts
) -> None:
    waiting = deque(targets)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(context.run.request.refinement_parallel_workers, len(targets))):
                group.create_task(_refine_waiting(context, refiner, waiting, counts))
    except ExceptionGroup as errors:
        raise first_error(errors) from None


async def _refine_waiting(
    context: RunContext, refiner: MomentRefiner, waiting: deque[RefinementTarget], counts: _RefinementCounts
) -> None:
    while waiting:
        try:
            counts.count(await refiner.refine(waiting.popleft()))
        except RunLost:
            raise
        except StageFailed as error:
            if isinstance(error, RefinementSkipped) and context.run.type is RunType.FULL:
                counts.kept[str(error)] += 1
            else:
                counts.count_failure(error)
        counts.report(context)


def _make_result(counts: _RefinementCounts) -> Mapping[str, Any]:
    result: dict[str, Any] = {
        "total": counts.total,
        "successful": counts.successful,
        "failed": counts.failed,
        "video_included": counts.with_clip,
        "model": ", ".join(sorted(counts.models)),
        "usage": describe_usage(counts.usage),
    }
    if counts.unchanged:
        result["unchanged"] = counts.unchanged
    if counts.kept:
        result["kept"] = counts.kept.total()
    if reasons := _list_reasons(counts):
        result["reason"] = "; ".join(reasons)
    return result


def _list_reasons(counts: _RefinementCounts) -> list[str]:
    reasons = [*counts.reasons][:_MAX_REASONS]
    if counts.unchanged and not reasons:
        reasons.append(_describe_unchanged(counts))
    return reasons + [_describe_kept(reason, count, counts.total) for reason, count in counts.kept.items()]


def _describe_unchanged(counts: _RefinementCounts) -> str:
    if counts.unchanged == counts.total:
        return "Times were exact already"
    return f"Times of {counts.unchanged} of {counts.total} moments were exact already"


def _describe_kept(reason: str, count: int, total: int) -> str:
    return reason if total == 1 else f"{reason} ({count} of {total} moments)"
