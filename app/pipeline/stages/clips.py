"""Cuts the clips of a video's moments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.core.errors import StageFailed
from app.pipeline.clipping import cut_missing, needs_no_clips, plan_clips
from app.pipeline.context import RunContext


@dataclass(slots=True)
class _Tally:
    """How far it is: clips that were there before, that were cut, and why others were not, each reason once."""

    total: int
    kept: int
    cut: int = 0
    failed: int = 0
    reasons: dict[str, None] = field(default_factory=dict)

    def count(self, failure: StageFailed | None) -> None:
        if failure is None:
            self.cut += 1
        else:
            self.failed += 1
            self.reasons[str(failure)] = None

    def report(self, context: RunContext) -> None:
        context.report(total=self.total, processed=self.kept + self.cut + self.failed, failed=self.failed)


async def skip_reason(context: RunContext) -> str | None:
    if await needs_no_clips(context):
        return "Refinement model does not support video"
    plan = await plan_clips(context)
    if not plan.originals:
        return "No moments to extract clips from"
    return None if plan.targets else "All clips already extracted"


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    plan = await plan_clips(context)
    tally = _Tally(plan.originals, plan.originals - len(plan.targets))
    tally.report(context)

    def told(failure: StageFailed | None) -> None:
        tally.count(failure)
        tally.report(context)

    await cut_missing(context, plan.targets, told)
    if tally.failed and not tally.cut:
        raise StageFailed(next(iter(tally.reasons)))
    return _describe(tally)


def _describe(tally: _Tally) -> Mapping[str, Any]:
    described: dict[str, Any] = {"total": tally.total, "clips": tally.cut, "failed": tally.failed}
    if tally.failed:
        described["reason"] = f"{tally.failed} of {tally.total} clips could not be cut: {'; '.join(tally.reasons)}"
    return described
