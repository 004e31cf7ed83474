"""`/api/search`"""

from typing import Annotated

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response

from app.api.answers import json_answer
from app.api.dependencies import AutocommitConnection
from app.api.schemas.search import SearchAnswer
from app.services.search import search_transcripts

router = APIRouter(prefix="/api/search", tags=["search"])

Words = Annotated[
    str,
    Query(min_length=1, max_length=1000, description='Words, "a phrase", or, -without', examples=["machine learning"]),
]


@router.get("", response_model=SearchAnswer)
async def search(q: Words, conn: AutocommitConnection, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> Response:
    """Search all transcripts; the best hits first, each with the times where it is said."""
    found = await search_transcripts(conn, q, limit)
    hits = [
        {
            "video_id": item.hit.video_identifier,
            "video_title": item.video_title,
            "rank": item.hit.rank,
            "snippet": item.snippet,
            "segments": orjson.Fragment(item.hit.segments),
        }
        for item in found
    ]
    return json_answer({"query": q, "hits": hits})
