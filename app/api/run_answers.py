"""Runs as every route shows them."""

from typing import Any

import orjson

from app.core.masking import mask_values
from app.models.runs import StageRecord, StageStatus
from app.repositories.runs import RunSummary
from app.services import runs


def describe_status(video_id: str, run: RunSummary | None) -> dict[str, Any]:
    """Return what is told of the newest run over a video, where there is one."""
    return describe_run(video_id, run) if run else _never_run(video_id)


def describe_run(video_id: str, run: RunSummary) -> dict[str, Any]:
    generation_model, refinement_model = runs.run_models(run)
    return {
        "request_id": run.identifier,
        "video_id": video_id,
        "type": run.type,
        "moment_id": (run.details.subject or None) if run.details else None,
        "status": runs.run_status(run),
        "model": runs.displayed_model(run),
        "generation_model": generation_model,
        "refinement_model": refinement_model,
        "answered_by": runs.answered_by(run),
        "started_at": runs.unix_seconds(run.started_at),
        "completed_at": None if run.completed_at is None else runs.unix_seconds(run.completed_at),
        "total_duration_seconds": runs.run_duration(run),
        "current_stage": runs.current_stage(run),
        "stages": {stage.value: _describe_stage(record) for stage, record in runs.run_stages(run).items()},
        "error_stage": run.error_stage,
        "error_message": mask_values(run.error_message),
        "coarse_moments": orjson.Fragment(run.coarse_moments),
        "refined_moments": orjson.Fragment(run.refined_moments),
    }


def _describe_stage(record: StageRecord) -> dict[str, Any]:
    started_at, completed_at = record.started_at, record.completed_at
    return {
        "status": record.status,
        "started_at": started_at,
        "completed_at": completed_at,
        "duration_seconds": None if started_at is None or completed_at is None else completed_at - started_at,
        "skipped": record.status is StageStatus.SKIPPED,
        "skip_reason": mask_values(record.skip_reason),
        "reason": mask_values(record.result.get("reason")),
        "error": mask_values(record.error),
        "progress": record.progress,
    }


def _never_run(video_id: str) -> dict[str, Any]:
    return {
        "request_id": "",
        "video_id": video_id,
        "status": "never_run",
        "model": "",
        "generation_model": "",
        "refinement_model": "",
        "started_at": 0.0,
        "completed_at": None,
        "total_duration_seconds": None,
        "current_stage": None,
        "stages": {},
        "error_stage": None,
        "error_message": None,
        "coarse_moments": [],
        "refined_moments": [],
    }
