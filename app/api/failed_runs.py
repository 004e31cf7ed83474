"""`/api/admin/pipeline/failed`: runs that failed, why, and another try."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from app.api.answers import Error, json_answer
from app.api.dependencies import AutocommitConnection, Checkouts, LiveState, RunIdentifier
from app.api.paging import HEADERS, next_link
from app.api.run_requests import RunRetriesDep, RunStartAnswer
from app.api.schemas.pipeline import FailedRunDetailsAnswer, FailedRunsAnswer
from app.core.masking import mask_values
from app.database.queries import LARGEST_ID
from app.repositories.ended_runs import FailedRun
from app.services import runs
from app.services.runs import unix_seconds

router = APIRouter(prefix="/api/admin/pipeline/failed", tags=["pipeline"])

PageLimit = Annotated[int, Query(ge=1, le=1000, description="Most runs to return")]
PageCursor = Annotated[int | None, Query(ge=1, le=LARGEST_ID, description="From the Link header of the page before")]
RunId = Annotated[
    RunIdentifier,
    Path(description="Identifier of the run", max_length=100, examples=["pipeline:motivation:1770552000000"]),
]


@router.get("", response_model=FailedRunsAnswer, responses={200: {"headers": HEADERS}, 422: {"model": Error}})
async def list_failed_runs(
    request: Request, conn: AutocommitConnection, limit: PageLimit = 100, cursor: PageCursor = None
) -> Response:
    """The runs that failed, those first that were accepted last."""
    failed = await runs.list_failed(conn, limit, cursor)
    headers = next_link(request, failed[-1].id) if len(failed) == limit else None
    return json_answer({"runs": [_describe(run) for run in failed], "count": len(failed)}, headers=headers)


@router.get("/{request_id}", response_model=FailedRunDetailsAnswer, responses={404: {"model": Error}})
async def get_failed_run(request_id: RunId, database: Checkouts, redis: LiveState) -> Response:
    """A run that failed, with what it was asked for and what a model answered; secrets in both are masked."""
    failed = await runs.get_failed(database, redis, request_id)
    return json_answer({**_describe(failed.run), "request": failed.request, "raw_answer": failed.raw_answer})


@router.post(
    "/{request_id}/retry",
    response_model=RunStartAnswer,
    responses={
        400: {"model": Error, "description": "What the run needs is not there"},
        404: {"model": Error},
        409: {"model": Error, "description": "A run would be in its way"},
    },
)
async def retry_failed_run(request_id: RunId, retries: RunRetriesDep) -> Response:
    """Start a run that failed again as it was asked for, without what it has finished."""
    run = await retries.retry_failed(request_id)
    return json_answer(RunStartAnswer(request_id=run.request_id, video_id=run.video))


def _describe(run: FailedRun) -> dict[str, Any]:
    return {
        "request_id": run.identifier,
        "video_id": run.video,
        "type": run.type,
        "moment_id": run.subject or None,
        "error_stage": run.error_stage,
        "error_message": mask_values(run.error_message),
        "attempts": run.attempt,
        "started_at": unix_seconds(run.started_at),
        "completed_at": None if run.completed_at is None else unix_seconds(run.completed_at),
        "raw_answer_length": run.raw_answer_length,
    }
