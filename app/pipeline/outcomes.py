"""The outcome of a run, derived from the records of its stages."""

from collections.abc import Mapping

from app.models.run import RunStatus, StageRecord
from app.models.stages import STAGE_TABLE, Stage
from app.repositories.claimed_runs import Outcome


def conclude(records: Mapping[Stage, StageRecord]) -> Outcome:
    """Return how a run ends whose stages are all done: partial where a stage could not make all it was to make."""
    for stage, record in records.items():
        if failed := _read_count(record, "failed"):
            title, total = STAGE_TABLE[stage].title, _read_count(record, "total")
            reason = record.result.get("reason") or f"{title}: {failed} of {total or 'them'} failed"
            return sum_up(records, RunStatus.PARTIAL, stage, str(reason))
    # Clients show the reason of a skipped stage and of a run, not that of a completed stage.
    reasons = (str(record.result["reason"]) for record in records.values() if record.result.get("too_few"))
    return sum_up(records, RunStatus.COMPLETED, reason=next(reasons, None))


def sum_up(
    records: Mapping[Stage, StageRecord], status: RunStatus, stage: Stage | None = None, reason: str | None = None
) -> Outcome:
    """Return an outcome with the totals that the stages have counted, as the table of stages says."""
    totals = {
        total: _read_count(record, key)
        for name, record in records.items()
        for key, total in STAGE_TABLE[name].totals.items()
    }
    return Outcome(status, stage, reason, **totals)


def _read_count(record: StageRecord, name: str) -> int | None:
    value = record.result.get(name)
    return value if isinstance(value, int) else None
