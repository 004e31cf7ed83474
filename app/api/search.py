"""`/api/search`"""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from app.api.answers import Error, Seconds, answer_dataclass, embed_json, json_answer
from app.api.dependencies import AutocommitConnection
from app.repositories.search import MomentHit, SearchFilters, TranscriptHit
from app.services import search
from app.services.search import SearchResult

router = APIRouter(prefix="/api/search", tags=["search"])

_RANK = Field(description="Higher is better; comparable within one list of one search only")
_SNIPPET = Field(description="HTML, with <mark> around matches", examples=["<mark>Machine</mark> learning"])


class SearchQuery(BaseModel):
    """What to search, where, and which page of the hits."""

    q: str = Field(min_length=1, max_length=1000, description='Words, "a phrase", or, -without', examples=["learning"])
    video: str | None = Field(None, max_length=255, description="Only what belongs to this video")
    language: str | None = Field(None, max_length=10, description="Only transcripts in this language", examples=["en"])
    min_score: int | None = Field(None, ge=0, le=10, description="Only such moments, and videos that have one")
    limit: int = Field(20, ge=1, le=100, description="Most items of each list")
    cursor: str = Field("", max_length=255, description="`next_cursor` of the page before, with the same filters")


@answer_dataclass
class MatchingSegment:
    start_time: Seconds
    end_time: Seconds


@answer_dataclass
class MatchingVideoAnswer:
    video_id: Annotated[str, Field(examples=["demo-talk"])]
    video_title: Annotated[str, Field(examples=["Demo Talk"])]
    rank: Annotated[float, _RANK]
    snippet: Annotated[str, _SNIPPET]
    segments: Annotated[list[MatchingSegment], Field(description="In the order of the video; empty where unknown")]


@answer_dataclass
class MatchingMomentAnswer:
    video_id: Annotated[str, Field(examples=["demo-talk"])]
    video_title: Annotated[str, Field(examples=["Demo Talk"])]
    moment_id: Annotated[str, Field(examples=["7621a017eec7482f"])]
    title: Annotated[str, Field(examples=["Machine learning"])]
    snippet: Annotated[str, _SNIPPET]
    start_time: Seconds
    end_time: Seconds
    score: Annotated[int | None, Field(ge=0, le=10, description="Null where it was not scored")]
    rank: Annotated[float, _RANK]


@answer_dataclass
class SearchAnswer:
    query: str
    hits: Annotated[list[MatchingVideoAnswer], Field(description="Videos in which it is said, the best first")]
    moments: Annotated[list[MatchingMomentAnswer], Field(description="Moments whose titles say it, the best first")]
    next_cursor: Annotated[str | None, Field(description="For the next page of both lists; null where neither goes on")]


@router.get("", response_model=SearchAnswer, responses={422: {"model": Error}})
async def search_everything(conn: AutocommitConnection, query: Annotated[SearchQuery, Query()]) -> Response:
    """Search what is said in videos and the titles of moments; the best first, with the times to jump to."""
    filters = SearchFilters(query.video, query.language, query.min_score)
    page = await search.search_library(conn, query.q, filters, query.limit, query.cursor)
    return json_answer(
        SearchAnswer(
            query=query.q,
            hits=[_make_video_hit_answer(found) for found in page.transcripts],
            moments=[_make_moment_hit_answer(found) for found in page.moments],
            next_cursor=page.next_cursor,
        )
    )


def _make_video_hit_answer(result: SearchResult[TranscriptHit]) -> MatchingVideoAnswer:
    return MatchingVideoAnswer(
        video_id=result.hit.video_identifier,
        video_title=result.video_title,
        rank=result.hit.rank,
        snippet=result.snippet,
        segments=embed_json(result.hit.segments),
    )


def _make_moment_hit_answer(result: SearchResult[MomentHit]) -> MatchingMomentAnswer:
    return MatchingMomentAnswer(
        video_id=result.hit.video_identifier,
        video_title=result.video_title,
        moment_id=result.hit.identifier,
        title=result.hit.title,
        snippet=result.snippet,
        start_time=result.hit.start_time,
        end_time=result.hit.end_time,
        score=result.hit.score,
        rank=result.hit.rank,
    )
