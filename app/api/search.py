"""`/api/search`"""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from app.api.answers import Error, Seconds, answer_dataclass, embed_json, json_answer
from app.api.dependencies import AutocommitConnection
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


_RANK = Field(description="Higher is better; comparable within one list of one search only")
_SNIPPET = Field(
    description="HTML: escaped text with <mark> around matches", examples=["<mark>Machine</mark> learning"]
)


@answer_dataclass
class MatchingSegment:
    start_time: Seconds
    end_time: Seconds


@answer_dataclass
class SearchHitAnswer:
    video_id: Annotated[str, Field(examples=["demo-talk"])]
    video_title: Annotated[str, Field(examples=["Demo Talk"])]
    rank: Annotated[float, _RANK]
    snippet: Annotated[str, _SNIPPET]
    segments: Annotated[
        list[MatchingSegment],
        Field(description="Where it is said, in the order of the video; empty where unknown"),
    ]


@answer_dataclass
class MomentHitAnswer:
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
    hits: Annotated[list[SearchHitAnswer], Field(description="Videos in which it is said, the best first")]
    moments: Annotated[list[MomentHitAnswer], Field(description="Moments whose titles say it, the best first")]
    next_cursor: Annotated[str | None, Field(description="For the next page of both lists; null where neither goes on")]


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
        SearchAnswer(
            query=q,
            hits=[_make_transcript_hit_answer(found) for found in page.transcripts],
            moments=[_make_moment_hit_answer(found) for found in page.moments],
            next_cursor=page.next_cursor,
        )
    )


def _make_transcript_hit_answer(found: SearchResult[SearchHit]) -> SearchHitAnswer:
    return SearchHitAnswer(
        video_id=found.hit.video_identifier,
        video_title=found.video_title,
        rank=found.hit.rank,
        snippet=found.snippet,
        segments=embed_json(found.hit.segments),
    )


def _make_moment_hit_answer(found: SearchResult[MomentHit]) -> MomentHitAnswer:
    return MomentHitAnswer(
        video_id=found.hit.video_identifier,
        video_title=found.video_title,
        moment_id=found.hit.identifier,
        title=found.hit.title,
        snippet=found.snippet,
        start_time=found.hit.start_time,
        end_time=found.hit.end_time,
        score=found.hit.score,
        rank=found.hit.rank,
    )
