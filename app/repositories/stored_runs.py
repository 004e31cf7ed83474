"""What is stored of runs, as objects; another version of this code may have stored it."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, LiteralString

from app.models.run import ClaimedRun, RunRequest, StageRecord, StageStatus
from app.models.stages import RunType, Stage

# Whether no stage of an active run has begun, for a query over pipeline.runs.
IS_WAITING: LiteralString = """
    (owner IS NULL AND NOT jsonb_path_exists(stages, '$.* ? (@.status != "pending" && @.status != "skipped")'))"""


def read_claimed(
    run_id: int,
    identifier: str,
    video_id: int,
    video: str,
    run_type: str,
    subject: str,
    request: dict[str, Any],
    stages: dict[str, Any],
    stage: str,
    attempt: int,
    owner: str,
    started_at: float,
) -> ClaimedRun:
    """Raises what Python raises where another version of this code has stored what this one does not know."""
    return ClaimedRun(
        run_id,
        identifier,
        video_id,
        video,
        RunType(run_type),
        subject,
        read_request(request),
        read_stages(stages),
        Stage(stage),
        attempt,
        owner,
        started_at,
    )


def read_request(stored: Mapping[str, Any]) -> RunRequest:
    """Read a stored request; what a newer or an older version of this code has added to it is left out."""
    known = {field.name for field in fields(RunRequest)}
    return RunRequest(**{name: value for name, value in stored.items() if name in known})


def read_stages(stored: Mapping[str, Any]) -> dict[Stage, StageRecord]:
    """Read stored records of stages, in the order of the pipeline. What is not known is left out: a stage, a field, and
    the record of a stage that is in a status of another version of this code."""
    records = {stage: _read_record(stored[stage]) for stage in Stage if stage in stored}
    return {stage: record for stage, record in records.items() if record}


def _read_record(stored: Any) -> StageRecord | None:
    if not isinstance(stored, Mapping) or stored.get("status") not in set(StageStatus):
        return None
    known = {field.name for field in fields(StageRecord)} - {"status"}
    return StageRecord(
        StageStatus(stored["status"]), **{name: value for name, value in stored.items() if name in known}
    )
