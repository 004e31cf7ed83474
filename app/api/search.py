"""`/api/search`"""

from dataclasses import asdict
from datetime import date, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.api.answers import NOT_FOUND, Error, Seconds, answer_dataclass, json_answer
from app.api.dependencies import AutocommitConnection, ResourcesDep
from app.api.run_requests import RunStarterDep
from app.core.validation import InputLine, NormalizedLine
from app.repositories.search_conditions import SearchFilters
from app.search.occurrences import Occurrence
from app.services import search, search_clips, search_vectors
from app.services.search import MomentHit, SearchMode, SearchRequest, VideoHit
from app.services.search_clips import FoundSpan

router = APIRouter(prefix="/api/search", tags=["search"])

_MAX_CLIPS = 100
_RANK = Field(description="Higher is better; comparable within one list of one search only")
_SNIPPET = Field(description="HTML, with <mark> around matches", examples=["<mark>Machine</mark> learning"])


class SearchQuery(BaseModel):
    """What to search, where, and which page of the hits."""

    q: str = Field(
        min_length=1, max_length=1000, description='Words, "a phrase", +needed, -without, or', examples=["learning"]
    )
    video: str | None = Field(None, max_length=255, description="Only what belongs to this video")
    language: str | None = Field(None, max_length=10, description="Only transcripts in this language", examples=["en"])
    min_score: int | None = Field(None, ge=0, le=10, description="Only such moments, and videos that have one")
    model: str | None = Field(None, max_length=100, description="Only moments by this model, and videos that have one")
    speaker: str | None = Field(
        None, max_length=255, description="Only passages in which this person speaks, where that is known"
    )
    after: date | None = Field(
        None, description="Only videos that were added on this day or later", examples=["2026-02-08"]
    )
    before: date | None = Field(None, description="Only videos that were added before this day")
    min_duration: float | None = Field(None, ge=0, allow_inf_nan=False, description="Of the video, in seconds")
    max_duration: float | None = Field(None, ge=0, allow_inf_nan=False, description="Of the video, in seconds")
    facets: bool = Field(
        False, description="Count the found videos by language, speaker, model, score, year and length"
    )
    limit: int = Field(20, ge=1, le=100, description="Most items of each list")
    mode: SearchMode = Field(
        SearchMode.HYBRID, description="By words, by meaning, or by both; quoted phrases are found by words only"
    )
    as_you_type: bool = Field(False, description="The last word may go on: `tomat` finds tomatoes")
    cursor: str = Field("", max_length=16_384, description="`next_cursor` of the page before, with the same filters")


@answer_dataclass
class MatchingSegment:
    start_time: Seconds
    end_time: Seconds


@answer_dataclass
class ClipSpanAnswer:
    """What `POST /api/search/clips` takes."""

    video_id: Annotated[str, Field(examples=["demo-talk"])]
    start_time: Seconds
    end_time: Seconds


@answer_dataclass
class MatchingVideoAnswer:
    video_id: Annotated[str, Field(examples=["demo-talk"])]
    video_title: Annotated[str, Field(examples=["Demo Talk"])]
    rank: Annotated[float, _RANK]
    snippet: Annotated[str, _SNIPPET]
    segments: Annotated[list[MatchingSegment], Field(description="In the order of the video; empty where unknown")]
    clip: Annotated[ClipSpanAnswer | None, Field(description="The best segment, for `POST /api/search/clips`")]


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
    clip: Annotated[ClipSpanAnswer, Field(description="The moment, for `POST /api/search/clips`")]


@answer_dataclass
class FacetAnswer:
    facet: Annotated[str, Field(examples=["language"])]
    value: Annotated[str, Field(examples=["en"])]
    videos: int


@answer_dataclass
class SearchAnswer:
    query: str
    hits: Annotated[list[MatchingVideoAnswer], Field(description="Videos in which it is said, the best first")]
    moments: Annotated[list[MatchingMomentAnswer], Field(description="Moments whose titles say it, the best first")]
    facets: Annotated[
        list[FacetAnswer] | None, Field(description="With `facets=true`, on the first page: most videos first")
    ]
    did_you_mean: Annotated[
        str | None, Field(description="The query as it is spelt in the library, where only that finds something")
    ]
    semantic: Annotated[bool, Field(description="Whether passages were found by their meaning")]
    next_cursor: Annotated[str | None, Field(description="For the next page of both lists; null where neither goes on")]


@router.get("", response_model=SearchAnswer, responses={422: {"model": Error}})
async def search_everything(resources: ResourcesDep, query: Annotated[SearchQuery, Query()]) -> Response:
    """Search what is said in videos and the titles of moments; the best first, with the times to jump to."""
    filters = SearchFilters(
        video=query.video,
        language=query.language,
        min_score=query.min_score,
        model=query.model,
        speaker=query.speaker,
        created_after=_to_midnight(query.after),
        created_before=_to_midnight(query.before),
        min_duration=query.min_duration,
        max_duration=query.max_duration,
    )
    page = await search.search_library(
        resources.database,
        resources.query_embedder,
        SearchRequest(query.q, filters, query.mode, query.as_you_type),
        query.limit,
        query.cursor,
        with_facets=query.facets,
    )
    return json_answer(
        SearchAnswer(
            query=query.q,
            hits=[_make_video_hit_answer(hit) for hit in page.videos],
            moments=[_make_moment_hit_answer(hit) for hit in page.moments],
            facets=None if page.facets is None else [FacetAnswer(**asdict(facet)) for facet in page.facets],
            did_you_mean=page.did_you_mean,
            semantic=page.is_semantic,
            next_cursor=page.next_cursor,
        )
    )


@answer_dataclass
class SemanticStatusAnswer:
    """By which model passages are found by meaning, and how many wait for its vectors or for the next one's."""

    model: Annotated[
        str | None,
        Field(examples=["local/all-MiniLM-L6-v2"], description="Null without pgvector, and before the first vectors"),
    ]
    next_model: Annotated[str | None, Field(description="Searched once no passage waits for it")]
    passages: int
    waiting: int


@router.get("/status", response_model=SemanticStatusAnswer)
async def get_semantic_status(conn: AutocommitConnection) -> Response:
    """Return how far workers are with the vectors of passages."""
    return json_answer(SemanticStatusAnswer(**asdict(await search_vectors.get_semantic_status(conn))))


class ClipSpanBody(BaseModel):
    """A span of a video; further fields are ignored."""

    video_id: NormalizedLine = Field(min_length=1, max_length=255, examples=["demo-talk"])
    start_time: Annotated[Seconds, Field(ge=0)]
    end_time: Annotated[Seconds, Field(ge=0)]
    title: InputLine = Field("", max_length=500, description="Of a new moment; empty: what is said")

    def to_span(self) -> FoundSpan:
        return FoundSpan(self.video_id, self.start_time, self.end_time, self.title)


class SearchClipsBody(BaseModel):
    """Spans to make clips of, such as the `clip` of each hit, or its `segments` with the `video_id`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"clips": [{"video_id": "demo-talk", "start_time": 3.2, "end_time": 4.1}]}]}
    )

    clips: list[ClipSpanBody] = Field(min_length=1, max_length=_MAX_CLIPS)


@answer_dataclass
class SpanMomentAnswer:
    video_id: Annotated[str, Field(examples=["demo-talk"])]
    moment_id: Annotated[str, Field(examples=["7621a017eec7482f"])]
    start_time: Seconds
    end_time: Seconds
    title: str
    is_new: Annotated[bool, Field(description="False for a moment that was there already")]


@answer_dataclass
class ClipRunAnswer:
    video_id: Annotated[str, Field(examples=["demo-talk"])]
    request_id: Annotated[str | None, Field(description="The run that cuts the clips", examples=["clips:demo-talk:1"])]
    problem: Annotated[str | None, Field(description="Why there is no run, though the moments are stored")]


@answer_dataclass
class SearchClipsAnswer:
    moments: list[SpanMomentAnswer]
    runs: list[ClipRunAnswer]


@router.post(
    "/clips",
    status_code=201,
    response_model=SearchClipsAnswer,
    responses={**NOT_FOUND, 400: {"model": Error, "description": "A rule for moments is broken"}},
)
async def make_clips(body: SearchClipsBody, resources: ResourcesDep, starter: RunStarterDep) -> Response:
    """Make moments of what a search has found, with the sentences around it, and cut their clips.

    All moments are stored, or none. A span that begins in an existing moment gets no other one. For each video a run
    cuts the clips of all moments that have none.
    """
    moments, runs = await search_clips.make_clips(resources.database, starter, [each.to_span() for each in body.clips])
    return json_answer(
        SearchClipsAnswer(
            moments=[
                SpanMomentAnswer(
                    video_id=each.video,
                    moment_id=each.identifier,
                    start_time=each.start,
                    end_time=each.end,
                    title=each.title,
                    is_new=each.is_new,
                )
                for each in moments
            ],
            runs=[ClipRunAnswer(video_id=run.video, request_id=run.identifier, problem=run.problem) for run in runs],
        ),
        201,
    )


def _to_midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime(day.year, day.month, day.day)


def _make_video_hit_answer(hit: VideoHit) -> MatchingVideoAnswer:
    occurrences = hit.occurrences
    return MatchingVideoAnswer(
        video_id=hit.video.identifier,
        video_title=hit.video_title,
        rank=hit.rank,
        snippet=hit.snippet,
        segments=[
            MatchingSegment(start_time=_to_seconds(each.start), end_time=_to_seconds(each.end)) for each in occurrences
        ],
        clip=_make_clip_span_answer(hit.video.identifier, max(occurrences, key=lambda occurrence: occurrence.weight))
        if occurrences
        else None,
    )


def _make_clip_span_answer(video_id: str, occurrence: Occurrence) -> ClipSpanAnswer:
    return ClipSpanAnswer(
        video_id=video_id, start_time=_to_seconds(occurrence.start), end_time=_to_seconds(occurrence.end)
    )


def _to_seconds(milliseconds: int | None) -> float:
    return (milliseconds or 0) / 1000


def _make_moment_hit_answer(hit: MomentHit) -> MatchingMomentAnswer:
    return MatchingMomentAnswer(
        video_id=hit.moment.video_identifier,
        video_title=hit.video_title,
        moment_id=hit.moment.identifier,
        title=hit.moment.title,
        snippet=hit.snippet,
        start_time=hit.moment.start_time,
        end_time=hit.moment.end_time,
        score=hit.moment.score,
        rank=hit.rank,
        clip=ClipSpanAnswer(
            video_id=hit.moment.video_identifier, start_time=hit.moment.start_time, end_time=hit.moment.end_time
        ),
    )
