"""The fields of a run's live status in Redis, all of them text, and what is read from them."""

import json
from collections.abc import Mapping
from dataclasses import asdict

from app.core.masking import mask_values
from app.models.run import ClaimedRun, StageRecord, StageStatus, shown_record
from app.models.stages import STAGE_TABLE, Stage

_PENDING = StageRecord(StageStatus.PENDING)


def write_run(
    run: ClaimedRun, records: Mapping[Stage, StageRecord], current: Stage | None, progress: Mapping[str, int] | None
) -> dict[str, str]:
    """Return the fields of a run that a worker works on; `progress` is the current stage's."""
    fields = {
        "request_id": run.identifier,
        "video_id": run.video,
        "status": "processing",
        "generation_model": run.request.generation_model,
        "refinement_model": run.request.refinement_model,
        "config": json.dumps(mask_values(asdict(run.request))),
        "started_at": str(run.started_at),
        "completed_at": "",
        "current_stage": current or "",
        "error_stage": "",
        "error_message": "",
    }
    for stage in STAGE_TABLE:
        record = shown_record(stage, records.get(stage, _PENDING))
        counters = progress if stage is current and record.status is StageStatus.PROCESSING else record.progress
        fields |= _write_stage(stage, record, counters or {})
    return fields


def read_progress(fields: Mapping[str, str], stage: Stage) -> dict[str, int] | None:
    """Return the counters of a stage by their own names; None where it has told none."""
    counters = STAGE_TABLE[stage].counters
    found = {counter: int(text) for counter, name in counters.items() if (text := fields.get(name, "")).isdecimal()}
    return found if any(found.values()) else None


def _write_stage(stage: Stage, record: StageRecord, counters: Mapping[str, int]) -> dict[str, str]:
    return {
        f"{stage}_status": record.status,
        f"{stage}_started_at": _write_time(record.started_at),
        f"{stage}_completed_at": _write_time(record.completed_at),
        f"{stage}_skipped": "true" if record.status is StageStatus.SKIPPED else "false",
        f"{stage}_skip_reason": record.skip_reason or "",
        **{name: str(counters.get(counter, 0)) for counter, name in STAGE_TABLE[stage].counters.items()},
    }


def _write_time(seconds: float | None) -> str:
    return "" if seconds is None else str(seconds)
