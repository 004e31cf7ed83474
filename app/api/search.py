"""`/api/search`"""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response

from app.api.answers import Error, json_answer
from app.api.dependencies import AutocommitConnection
from app.api.schemas.search import SearchAnswer
from app.repositories.search import MomentHit, SearchFilters, SearchHit
from app.services import search
from app.services.search import SearchResult

router = APIRouter(prefix="/api/search", tags=["search"])

Words = Annotated[
    str,
    Query(min_length=1, max_length=1000, description='Words, "a phrase", or, -without', examples=["machine learning"]),
]
OfVideo = Annotated[str | None, Query(max_length=255, description="Only what belongs to this video")]
OfLanguage = Annotated[
    str | None, Query(max_length=10, description="Only videos whose transcript is in this language", examples=["en"])
]
MinScore = Annotated[
    int | None,
    Query(ge=0, le=10, description="Only moments of at least this score, and only videos that have such a moment"),
]
PageLimit = Annotated[int, Query(ge=1, le=100, description="Most items of each list")]
Cursor = Annotated[str, Query(max_length=255, description="`next_cursor` of the page before, with the same filters")]


@router.get("", response_model=SearchAnswer, responses={422: {"model": Error}})
async def search_everything(
    conn: AutocommitConnection,
    q: Words,
    video: OfVideo = None,
    language: OfLanguage = None,
    min_score: MinScore = None,
    limit: PageLimit = 20,
    cursor: Cursor = "",
) -> Response:
    """Search what is said in videos and the titles of moments; the best first, with the times to jump to."""
    page = await search.search(conn, q, SearchFilters(video, language, min_score), limit, cursor)
    return json_answer(
        {
            "query": q,
            "hits": [_hit(found) for found in page.transcripts],
            "moments": [_moment(found) for found in page.moments],
            "next_cursor": page.next_cursor,
        }
    )


def _hit(found: SearchResult[SearchHit]) -> dict[str, Any]:
    return {
        "video_id": found.hit.video_identifier,
        "video_title": found.video_title,
        "rank": found.hit.rank,
        "snippet": found.snippet,
        "segments": orjson.Fragment(found.hit.segments),
    }


def _moment(found: SearchResult[MomentHit]) -> dict[str, Any]:
    return {
        "video_id": found.hit.video_identifier,
        "video_title": found.video_title,
        "moment_id": found.hit.identifier,
        "title": found.hit.title,
        "snippet": found.snippet,
        "start_time": found.hit.start_time,
        "end_time": found.hit.end_time,
        "score": found.hit.score,
        "rank": found.hit.rank,
    }
