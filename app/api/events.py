"""`/api/pipeline/{id}/events`: the status of a run, sent whenever it changes."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Request
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.responses import Response, StreamingResponse

from app.api.dependencies import UnknownVideoId
from app.api.run_answers import describe_status
from app.resources import Resources
from app.services.runs import find_run_status, has_ended
from app.services.status import FeedState, StatusFeeds

router = APIRouter(prefix="/api/pipeline/{video_id}", tags=["pipeline"])

LastEventId = Annotated[
    str, Header(alias="Last-Event-ID", max_length=100, description="The last event that a client has seen")
]

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_EXAMPLE = 'event: status\ndata: {"request_id":"pipeline:demo-talk:1795347063363","status":"processing"}\nid: 5f\n\n'
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events called `status`, which hold the JSON of the status, until the run has ended",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
    },
    204: {"description": "The client has seen the end of the run, and need not ask again"},
}


def make_feeds(resources: Resources) -> StatusFeeds:
    """Return what follows the statuses of videos."""

    async def read(video: str) -> FeedState:
        run = await find_run_status(resources.database, resources.redis, video)
        data = orjson.dumps(describe_status(video, run))
        return FeedState(hashlib.blake2s(data, digest_size=8).hexdigest(), data, run is None or has_ended(run))

    return StatusFeeds(read, lambda: resources.health.is_stopping)


@router.get("/events", response_class=StreamingResponse, responses=_RESPONSES)
async def follow_run(request: Request, video_id: UnknownVideoId, last_event_id: LastEventId = "") -> Response:
    """The status of the newest full run over a video, sent at once and then whenever it changes, until it has ended."""
    feeds: StatusFeeds = request.app.state.run_feeds
    state = await feeds.get_state(video_id)
    is_known = state.id == last_event_id
    if is_known and state.is_final:
        return Response(status_code=204)
    events = _write_events(feeds, video_id, state, is_known=is_known)
    return StreamingResponse(events, media_type="text/event-stream", headers=_HEADERS)


async def _write_events(feeds: StatusFeeds, video: str, state: FeedState, *, is_known: bool) -> AsyncGenerator[bytes]:
    yield KEEPALIVE_COMMENT if is_known else _write(state)
    async with aclosing(feeds.follow(video, state)) as states:
        async for changed in states:
            yield KEEPALIVE_COMMENT if changed is None else _write(changed)


def _write(state: FeedState) -> bytes:
    return format_sse_event(data_str=state.data.decode(), event="status", id=state.id)
