"""`/api/pipeline`: what is known of runs."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.answers import Error, json_answer
from app.api.dependencies import AutocommitConnection, Checkouts, LiveState, UnknownVideoId
from app.api.paging import HEADERS, PageCursor, next_link
from app.api.run_answers import describe_run, describe_status
from app.api.schemas.pipeline import ActiveRunsAnswer, HistoryAnswer, RunAnswer
from app.models.stages import RunType
from app.repositories.runs import ActiveRun
from app.services import runs

router = APIRouter(prefix="/api/pipeline", tags=["pipeline"])

PageLimit = Annotated[int, Query(ge=1, le=100, description="Most runs to return")]
Cursor = Annotated[str, Query(max_length=255, description="From the Link header of the page before")]
OfType = Annotated[RunType | None, Query(alias="type", description="Only runs of this type")]

_PAGE: dict[int | str, dict[str, Any]] = {200: {"headers": HEADERS}, 422: {"model": Error}}


@router.get("/{video_id}/status", response_model=RunAnswer)
async def get_run_status(video_id: UnknownVideoId, database: Checkouts, redis: LiveState) -> Response:
    """The newest full run over a video; `never_run` where there is none, and where there is no such video."""
    return json_answer(describe_status(video_id, await runs.find_run_status(database, redis, video_id)))


@router.get("/{video_id}/history", response_model=HistoryAnswer, responses=_PAGE)
async def list_runs(
    request: Request,
    video_id: UnknownVideoId,
    conn: AutocommitConnection,
    limit: PageLimit = 50,
    cursor: Cursor = "",
    run_type: OfType = None,
) -> Response:
    """The runs over a video, newest first; `Link` names the page of older ones."""
    page = await runs.list_runs(conn, video_id, limit, cursor, run_type)
    headers = next_link(request, page.next_cursor) if page.next_cursor else None
    shown = [describe_run(video_id, run) for run in page.runs]
    return json_answer({"video_id": video_id, "runs": shown, "count": len(shown)}, headers=headers)


@router.get("/active", response_model=ActiveRunsAnswer, responses=_PAGE)
async def list_active_runs(
    request: Request, conn: AutocommitConnection, limit: PageLimit = 100, cursor: PageCursor = 0
) -> Response:
    """The runs over all videos that are under way, or wait for a worker, oldest first."""
    active = await runs.list_active(conn, limit, cursor)
    headers = next_link(request, active[-1].id) if len(active) == limit else None
    return json_answer({"runs": [_describe_active(run) for run in active], "count": len(active)}, headers=headers)


def _describe_active(run: ActiveRun) -> dict[str, Any]:
    return {
        "request_id": run.identifier,
        "video_id": run.video,
        "type": run.type,
        "moment_id": run.subject or None,
        "status": "pending" if run.is_waiting else "processing",
        "current_stage": run.current_stage,
        "attempts": run.attempt,
        "started_at": runs.unix_seconds(run.started_at),
    }
