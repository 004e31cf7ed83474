"""Runs: their status, history, events, and failures."""

import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Literal, Self

import orjson
from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel, Field
from starlette.responses import Response, StreamingResponse

from app.api.answers import (
    CURSOR_DESCRIPTION,
    NOT_FOUND,
    PAGE_RESPONSES,
    Error,
    PageQuery,
    Responses,
    Seconds,
    answer_dataclass,
    embed_json,
    json_answer,
    next_page_header,
)
from app.api.dependencies import AnyVideoId, AutocommitConnection, ResourcesDep, RunIdentifier
from app.api.run_requests import NOT_READY, RunRetrierDep, RunStartAnswer
from app.core.masking import mask_values
from app.database.queries import LARGEST_ID
from app.models.runs import StageRecord, StageStatus
from app.models.stages import RunType
from app.repositories.ended_runs import FailedRun
from app.repositories.runs import ActiveRun, RunSummary
from app.resources import Resources
from app.services import runs
from app.services.live_runs import RunStatusFeeds, SerializedStatus
from app.services.runs import ReportedStatus, find_newest_full_run, has_run_ended, utc_to_unix_seconds

router = APIRouter(prefix="/api/pipeline", tags=["pipeline"])
failed = APIRouter(prefix="/api/admin/pipeline/failed", tags=["pipeline"])

RunId = Annotated[RunIdentifier, Path(description="Identifier of the run", max_length=100)]
LastEventId = Annotated[str, Header(alias="Last-Event-ID", max_length=100, description="Last received event")]

_PAGE: Responses = {**PAGE_RESPONSES, 422: {"model": Error}}
_EVENT_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_EXAMPLE_EVENT = 'event: status\ndata: {"request_id":"pipeline:talk:1795347063363","status":"processing"}\nid: 5f\n\n'
_EVENT_RESPONSES: Responses = {
    200: {
        "description": "Events named `status` with the JSON of the status, until the run has ended",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE_EVENT}},
    },
    204: {"description": "The client has received the end of the run and need not ask again"},
}


class RunHistoryQuery(BaseModel):
    """Which runs of a video to list."""

    limit: int = Field(50, ge=1, le=100, description="Most runs to return")
    cursor: str = Field("", max_length=255, description=CURSOR_DESCRIPTION)
    type: RunType | None = Field(None, description="Only runs of this type")


class ActiveRunsQuery(PageQuery):
    """Which active runs to list."""

    limit: int = Field(100, ge=1, le=100, description="Most runs to return")


class FailedRunsQuery(BaseModel):
    """Which failed runs to list."""

    limit: int = Field(100, ge=1, le=1000, description="Most runs to return")
    cursor: int | None = Field(None, ge=1, le=LARGEST_ID, description=CURSOR_DESCRIPTION)


@answer_dataclass
class RunStageAnswer:
    status: StageStatus
    started_at: Annotated[float | None, Field(description="Seconds since 1970")]
    completed_at: Annotated[float | None, Field(description="Seconds since 1970")]
    duration_seconds: float | None
    skipped: bool
    skip_reason: str | None
    reason: Annotated[str | None, Field(description="A remark on a completed stage, such as why it found nothing")]
    error: str | None
    progress: Mapping[str, int] | None

    @classmethod
    def from_record(cls, record: StageRecord) -> Self:
        started_at, completed_at = record.started_at, record.completed_at
        return cls(
            status=record.status,
            started_at=started_at,
            completed_at=completed_at,
            duration_seconds=None if started_at is None or completed_at is None else completed_at - started_at,
            skipped=record.status is StageStatus.SKIPPED,
            skip_reason=mask_values(record.skip_reason),
            reason=mask_values(record.result.get("reason")),
            error=mask_values(record.error),
            progress=record.progress,
        )


@answer_dataclass
class MomentOfRunAnswer:
    id: Annotated[str, Field(examples=["7621a017eec7482f"])]
    title: str
    start_time: Seconds
    end_time: Seconds


@answer_dataclass
class RunStatusAnswer:
    """The status of a video's newest full run; `never_run` if there is none."""

    request_id: Annotated[str, Field(description="Empty without a run", examples=["pipeline:talk:1795347063363"])]
    video_id: Annotated[str, Field(examples=["demo-talk"])]
    status: ReportedStatus | Literal["never_run"]
    model: Annotated[str, Field(description="What generated the moments; empty where unknown", examples=["minimax"])]
    generation_model: Annotated[str, Field(description="The requested key", examples=["minimax"])]
    refinement_model: Annotated[str, Field(examples=["qwen3_vl_fp8"])]
    started_at: Annotated[float, Field(description="Seconds since 1970", examples=[1795347063.36])]
    completed_at: Annotated[float | None, Field(description="Seconds since 1970", examples=[1795347066.26])]
    total_duration_seconds: Annotated[float | None, Field(description="Of a completed run", examples=[2.9])]
    current_stage: Annotated[str | None, Field(description="The last stage that has run", examples=["refinement"])]
    stages: Annotated[dict[str, RunStageAnswer], Field(description="The known stages, in the order of the pipeline")]
    error_stage: str | None
    error_message: str | None
    coarse_moments: Annotated[list[MomentOfRunAnswer], Field(description="The moments that the video has now")]
    refined_moments: list[MomentOfRunAnswer]

    @classmethod
    def for_never_run(cls, video_id: str) -> Self:
        return cls(
            request_id="",
            video_id=video_id,
            status="never_run",
            model="",
            generation_model="",
            refinement_model="",
            started_at=0.0,
            completed_at=None,
            total_duration_seconds=None,
            current_stage=None,
            stages={},
            error_stage=None,
            error_message=None,
            coarse_moments=[],
            refined_moments=[],
        )


@answer_dataclass
class RunAnswer(RunStatusAnswer):
    """The status of one run."""

    type: Annotated[str, Field(description="What the run does", examples=["full"])]
    moment_id: Annotated[str | None, Field(description="The moment that the run refines")]
    answered_by: Annotated[
        dict[str, str],
        Field(description="By stage, the model that answered, local ones too", examples=[{"generation": "local"}]),
    ]

    @classmethod
    def from_run(cls, video_id: str, run: RunSummary) -> Self:
        generation_model, refinement_model = runs.requested_models(run)
        return cls(
            request_id=run.identifier,
            video_id=video_id,
            type=run.type,
            moment_id=(run.details.subject or None) if run.details else None,
            status=runs.get_reported_status(run),
            model=runs.displayed_model(run),
            generation_model=generation_model,
            refinement_model=refinement_model,
            answered_by=runs.models_by_stage(run),
            started_at=utc_to_unix_seconds(run.started_at),
            completed_at=None if run.completed_at is None else utc_to_unix_seconds(run.completed_at),
            total_duration_seconds=runs.get_seconds_of_completed_run(run),
            current_stage=runs.get_reported_current_stage(run),
            stages={
                stage.value: RunStageAnswer.from_record(record)
                for stage, record in runs.make_reported_stage_records(run).items()
            },
            error_stage=run.error_stage,
            error_message=mask_values(run.error_message),
            coarse_moments=embed_json(run.coarse_moments),
            refined_moments=embed_json(run.refined_moments),
        )


@answer_dataclass
class RunHistoryAnswer:
    video_id: Annotated[str, Field(examples=["demo-talk"])]
    runs: Annotated[list[RunAnswer], Field(description="The newest first")]
    count: Annotated[int, Field(ge=0, description="Runs in this answer")]


@answer_dataclass
class ActiveRunAnswer:
    request_id: Annotated[str, Field(examples=["pipeline:demo-talk:1795347063363"])]
    video_id: Annotated[str, Field(examples=["demo-talk"])]
    type: Annotated[str, Field(examples=["full"])]
    moment_id: Annotated[str | None, Field(description="The moment that the run refines")]
    status: Annotated[Literal["pending", "processing"], Field(description="`pending` while no worker has claimed it")]
    current_stage: Annotated[str | None, Field(examples=["transcript"])]
    attempts: Annotated[int, Field(ge=0, description="Attempts at the current stage")]
    started_at: Annotated[float, Field(description="When it was accepted, in seconds since 1970")]

    @classmethod
    def from_row(cls, run: ActiveRun) -> Self:
        return cls(
            request_id=run.identifier,
            video_id=run.video,
            type=run.type,
            moment_id=run.subject or None,
            status="pending" if run.is_waiting else "processing",
            current_stage=run.current_stage,
            attempts=run.attempt,
            started_at=utc_to_unix_seconds(run.started_at),
        )


@answer_dataclass
class ActiveRunsAnswer:
    runs: Annotated[list[ActiveRunAnswer], Field(description="The oldest first")]
    count: Annotated[int, Field(ge=0, description="Runs in this answer")]


@answer_dataclass
class FailedRunAnswer:
    request_id: Annotated[str, Field(examples=["pipeline:demo-talk:1795347063363"])]
    video_id: Annotated[str, Field(examples=["demo-talk"])]
    type: Annotated[str, Field(examples=["full"])]
    moment_id: Annotated[str | None, Field(description="The moment that the run was to refine")]
    error_stage: Annotated[str | None, Field(examples=["generation"])]
    error_message: str | None
    attempts: Annotated[int, Field(ge=0, description="Attempts at the failed stage")]
    started_at: Annotated[float, Field(description="Seconds since 1970")]
    completed_at: Annotated[float | None, Field(description="Seconds since 1970")]
    raw_answer_length: Annotated[int, Field(ge=0, description="Characters of a model's answer that was not usable")]

    @classmethod
    def from_row(cls, run: FailedRun) -> Self:
        return cls(
            request_id=run.identifier,
            video_id=run.video,
            type=run.type,
            moment_id=run.subject or None,
            error_stage=run.error_stage,
            error_message=mask_values(run.error_message),
            attempts=run.attempt,
            started_at=utc_to_unix_seconds(run.started_at),
            completed_at=None if run.completed_at is None else utc_to_unix_seconds(run.completed_at),
            raw_answer_length=run.raw_answer_length,
        )


@answer_dataclass
class FailedRunsAnswer:
    runs: Annotated[list[FailedRunAnswer], Field(description="The run that was accepted last comes first")]
    count: Annotated[int, Field(ge=0, description="Runs in this answer")]


@answer_dataclass
class FailedRunDetailsAnswer(FailedRunAnswer):
    request: Annotated[dict[str, Any], Field(description="The options of the run")]
    raw_answer: Annotated[str | None, Field(description="A model's answer that was not usable")]


@router.get("/{video_id}/status", response_model=RunAnswer | RunStatusAnswer)
async def get_run_status(video_id: AnyVideoId, resources: ResourcesDep) -> Response:
    """The newest full run of a video; `never_run` where there is none, also for an unknown video."""
    run = await find_newest_full_run(resources.database, resources.redis, video_id)
    return json_answer(_make_run_status_answer(video_id, run))


@router.get("/{video_id}/history", response_model=RunHistoryAnswer, responses=_PAGE)
async def list_runs(
    request: Request, video_id: AnyVideoId, conn: AutocommitConnection, query: Annotated[RunHistoryQuery, Query()]
) -> Response:
    """The runs of a video, newest first; `Link` names the page of older ones."""
    page = await runs.list_runs(conn, video_id, query.limit, query.cursor, query.type)
    headers = next_page_header(request, page.next_cursor) if page.next_cursor else None
    shown = [RunAnswer.from_run(video_id, run) for run in page.runs]
    return json_answer(RunHistoryAnswer(video_id=video_id, runs=shown, count=len(shown)), headers=headers)


@router.get("/active", response_model=ActiveRunsAnswer, responses=_PAGE)
async def list_active_runs(
    request: Request, conn: AutocommitConnection, page: Annotated[ActiveRunsQuery, Query()]
) -> Response:
    """The runs of all videos that have not ended, oldest first."""
    active = await runs.list_active_runs(conn, page.limit, page.cursor)
    headers = next_page_header(request, active[-1].id) if len(active) == page.limit else None
    shown = [ActiveRunAnswer.from_row(run) for run in active]
    return json_answer(ActiveRunsAnswer(runs=shown, count=len(shown)), headers=headers)


@failed.get("", response_model=FailedRunsAnswer, responses=_PAGE)
async def list_failed_runs(
    request: Request, conn: AutocommitConnection, query: Annotated[FailedRunsQuery, Query()]
) -> Response:
    """The failed runs; the run that was accepted last comes first."""
    found = await runs.list_failed_runs(conn, query.limit, query.cursor)
    headers = next_page_header(request, found[-1].id) if len(found) == query.limit else None
    shown = [FailedRunAnswer.from_row(run) for run in found]
    return json_answer(FailedRunsAnswer(runs=shown, count=len(shown)), headers=headers)


@failed.get("/{request_id}", response_model=FailedRunDetailsAnswer, responses=NOT_FOUND)
async def get_failed_run(request_id: RunId, resources: ResourcesDep) -> Response:
    """A failed run with its options and a model's answer that was not usable; secrets in both are masked."""
    found = await runs.get_failed_run(resources.database, resources.redis, request_id)
    summary = FailedRunAnswer.from_row(found.run)
    return json_answer(FailedRunDetailsAnswer(**vars(summary), request=found.request, raw_answer=found.raw_answer))


@failed.post("/{request_id}/retry", response_model=RunStartAnswer, responses=NOT_READY)
async def retry_failed_run(request_id: RunId, retrier: RunRetrierDep) -> Response:
    """Start a failed run again with the same options. Finished stages are not repeated."""
    run = await retrier.retry_failed_run(request_id)
    return json_answer(RunStartAnswer(request_id=run.request_id, video_id=run.video))


@router.get("/{video_id}/events", response_class=StreamingResponse, responses=_EVENT_RESPONSES)
async def follow_run(request: Request, video_id: AnyVideoId, last_event_id: LastEventId = "") -> Response:
    """The status of a video's newest full run, sent at once and after every change, until the run has ended."""
    feeds: RunStatusFeeds = request.app.state.run_feeds
    state = await feeds.read_status_for_new_follower(video_id)
    client_has_state = state.id == last_event_id
    if client_has_state and state.is_final:
        return Response(status_code=204)
    events = _stream_status_events(feeds, video_id, state, client_has_state=client_has_state)
    return StreamingResponse(events, media_type="text/event-stream", headers=_EVENT_HEADERS)


def make_run_status_feeds(resources: Resources) -> RunStatusFeeds:
    """Make the feeds that send each follower of a video the status of its newest full run."""

    async def read_newest_run_status(video: str) -> SerializedStatus:
        run = await find_newest_full_run(resources.database, resources.redis, video)
        data = orjson.dumps(_make_run_status_answer(video, run))
        digest = hashlib.blake2s(data, digest_size=8).hexdigest()
        return SerializedStatus(digest, data, run is None or has_run_ended(run))

    return RunStatusFeeds(read_newest_run_status, lambda: resources.health.is_stopping)


def _make_run_status_answer(video_id: str, run: RunSummary | None) -> RunStatusAnswer:
    return RunAnswer.from_run(video_id, run) if run else RunStatusAnswer.for_never_run(video_id)


async def _stream_status_events(
    feeds: RunStatusFeeds, video: str, state: SerializedStatus, *, client_has_state: bool
) -> AsyncGenerator[bytes]:
    yield KEEPALIVE_COMMENT if client_has_state else _format_status_event(state)
    async with aclosing(feeds.follow_status(video, state)) as states:
        async for changed in states:
            yield KEEPALIVE_COMMENT if changed is None else _format_status_event(changed)


def _format_status_event(state: SerializedStatus) -> bytes:
    return format_sse_event(data_str=state.data.decode(), event="status", id=state.id)
