"""`/api/pipeline/{id}`: what is known of the runs over a video."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.answers import json_answer
from app.api.dependencies import AutocommitConnection, VideoId
from app.api.paging import next_link
from app.api.schemas.common import Error
from app.api.schemas.pipeline import HistoryAnswer, RunAnswer
from app.repositories.runs import ShownRun
from app.services import runs

router = APIRouter(prefix="/api/pipeline/{video_id}", tags=["pipeline"])

PageLimit = Annotated[int, Query(ge=1, le=100, description="Most runs to return")]
Cursor = Annotated[str, Query(max_length=255, description="From the Link header of the page before")]


@router.get("/status", response_model=RunAnswer)
async def get_run_status(video_id: VideoId, conn: AutocommitConnection) -> Response:
    """The newest run over a video; `never_run` where there is none, and where there is no such video."""
    run = await runs.find_latest_run(conn, video_id)
    return json_answer(_answer(video_id, run) if run else _never_run(video_id))


@router.get("/history", response_model=HistoryAnswer, responses={422: {"model": Error}})
async def list_runs(
    request: Request, video_id: VideoId, conn: AutocommitConnection, limit: PageLimit = 50, cursor: Cursor = ""
) -> Response:
    """The runs over a video, newest first; `Link` names the page of older ones."""
    page = await runs.list_runs(conn, video_id, limit, cursor)
    headers = next_link(request, page.next_cursor) if page.next_cursor else None
    shown = [_answer(video_id, run) for run in page.runs]
    return json_answer({"video_id": video_id, "runs": shown, "count": len(shown)}, headers=headers)


def _answer(video_id: str, run: ShownRun) -> dict[str, Any]:
    generation_model, refinement_model = runs.models_of(run)
    stages = {name: _stage(status, run.error_message) for name, status in runs.stages_of(run).items()}
    return {
        "request_id": run.identifier,
        "video_id": video_id,
        "status": runs.status_of(run),
        "model": run.model or "",
        "generation_model": generation_model,
        "refinement_model": refinement_model,
        "started_at": runs.unix_seconds(run.started_at),
        "completed_at": None if run.completed_at is None else runs.unix_seconds(run.completed_at),
        "total_duration_seconds": runs.duration_of(run),
        "current_stage": run.error_stage if run.error_stage in stages else next(reversed(stages), None),
        "stages": stages,
        "error_stage": run.error_stage,
        "error_message": run.error_message,
        "coarse_moments": orjson.Fragment(run.coarse_moments),
        "refined_moments": orjson.Fragment(run.refined_moments),
    }


def _stage(status: str, error: str | None) -> dict[str, Any]:
    """Of a stage that has ended the table tells how, not when."""
    return {
        "status": status,
        "started_at": None,
        "completed_at": None,
        "duration_seconds": None,
        "skipped": False,
        "skip_reason": None,
        "error": error if status == "failed" else None,
        "progress": None,
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
