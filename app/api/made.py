"""How moments and runs are shown where they are what was made with something."""

from typing import Any

from app.core.masking import mask_values
from app.repositories.provenance import MomentWithVideo, RunWithVideo


def moment_answer(moment: MomentWithVideo) -> dict[str, Any]:
    return {
        "id": moment.identifier,
        "video_id": moment.video_identifier,
        "start_time": moment.start_time,
        "end_time": moment.end_time,
        "title": moment.title,
        "is_refined": moment.is_refined,
        "parent_id": moment.parent_identifier,
        "model_name": moment.generation_model,
        "generation_config_id": moment.generation_config_id,
        "score": moment.score,
        "scoring_model": moment.scoring_model,
        "scored_at": moment.scored_at,
        "created_at": moment.created_at,
        "updated_at": moment.updated_at,
    }


def run_answer(run: RunWithVideo) -> dict[str, Any]:
    return {
        "id": run.identifier,
        "video_id": run.video_identifier,
        "generation_config_id": run.generation_config_id,
        "pipeline_type": run.pipeline_type,
        "status": run.status,
        "started_at": run.started_at,
        "completed_at": run.completed_at,
        "duration_seconds": run.duration_seconds,
        "total_moments_generated": run.total_moments_generated,
        "total_clips_created": run.total_clips_created,
        "error_stage": run.error_stage,
        "error_message": mask_values(run.error_message),
        "created_at": run.created_at,
    }
