"""Transcripts as JSON, as SubRip and WebVTT captions and as plain text."""

import re
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from isal import igzip
from pydantic import Field
from starlette.responses import Response

from app.api.answers import NOT_FOUND, Error, Responses, Seconds, answer_dataclass
from app.api.conditional_requests import (
    CONDITIONAL_RESPONSES,
    GZIP_ENCODING,
    HttpValidators,
    accepts_gzip,
    check_preconditions,
    find_requested_ranges,
    has_etag_condition,
    make_revalidation_headers,
    unsatisfiable_range_answer,
)
from app.api.dependencies import FastReadRoute, ResourcesDep, VideoId
from app.repositories.transcripts import TranscriptVersion
from app.resources import Resources
from app.services.transcripts import CaptionFormat, render_captions
from app.services.videos import BatchedVideoReader

reads = APIRouter(prefix="/api/videos/{video_id}/transcript", tags=["transcripts"], route_class=FastReadRoute)
static = APIRouter(prefix="/static", tags=["static"], route_class=FastReadRoute)
router = APIRouter(prefix="/api/videos/{video_id}", tags=["transcripts"])

_COMPRESSION_LEVEL = 1
_UNSAFE_CHARACTER = re.compile(r"[^A-Za-z0-9._ -]")
_PART = {"application/json": {"schema": {"type": "string", "format": "binary"}}}
_CONDITIONAL_RESPONSES: Responses = {**CONDITIONAL_RESPONSES, **NOT_FOUND}
_TRANSCRIPT_RESPONSES: Responses = {
    206: {"description": "The part that `Range` requests", "content": _PART},
    **_CONDITIONAL_RESPONSES,
    416: {"model": Error, "description": "The transcript has no such part; `Content-Range` names its size"},
}
_MEDIA_TYPES = {
    CaptionFormat.SRT: "application/x-subrip; charset=utf-8",
    CaptionFormat.VTT: "text/vtt; charset=utf-8",
    CaptionFormat.TXT: "text/plain; charset=utf-8",
}
_EXAMPLES = {
    CaptionFormat.SRT: "1\n00:00:05,760 --> 00:00:06,880\nOh, there we go.\n",
    CaptionFormat.VTT: "WEBVTT\n\n00:00:05.760 --> 00:00:06.880\nOh, there we go.\n",
    CaptionFormat.TXT: "Oh, there we go.\n",
}


@answer_dataclass
class TranscriptWord:
    word: str
    start: Seconds
    end: Seconds


@answer_dataclass
class TranscriptSegment:
    text: str
    start: Seconds
    end: Seconds
    word_count: int | None = None


@answer_dataclass
class TranscriptMetadata:
    total_segments: int
    total_words: int
    duration: Annotated[float | None, Field(description="End of the last segment, in seconds")]


# Only documentation: PostgreSQL writes the document, so that words and segments are not parsed here.
@answer_dataclass
class TranscriptAnswer:
    transcription: str
    processing_time: float | None
    word_timestamps: list[TranscriptWord]
    segment_timestamps: list[TranscriptSegment]
    metadata: TranscriptMetadata


def _caption_route_documentation(caption_format: CaptionFormat) -> dict[str, Any]:
    media_type = _MEDIA_TYPES[caption_format].partition(";")[0]
    content = {media_type: {"schema": {"type": "string"}, "example": _EXAMPLES[caption_format]}}
    return {"response_class": Response, "responses": {200: {"content": content}, **_CONDITIONAL_RESPONSES}}


@reads.get("", response_model=TranscriptAnswer, responses=_TRANSCRIPT_RESPONSES)
@static.head("/transcripts/{video_id}.json", include_in_schema=False)
@static.get(
    "/transcripts/{video_id}.json",
    name="get_static_transcript",
    response_model=TranscriptAnswer,
    responses=_TRANSCRIPT_RESPONSES,
)
async def get_transcript(request: Request, video_id: VideoId, resources: ResourcesDep) -> Response:
    """A video's transcript with the times of its words and segments, in seconds."""
    gzipped = accepts_gzip(request)
    if refusal := await _check_preconditions(request, video_id, resources.reads):
        return refusal
    document = await resources.reads.get_transcript(video_id)
    if not gzipped:
        return _plain_transcript_answer(
            request, document.plain_json, _make_transcript_etag(document.version, gzipped=False)
        )
    headers = make_revalidation_headers(_make_transcript_etag(document.version, gzipped=True)) | GZIP_ENCODING
    return Response(document.gzipped_json, headers=headers, media_type="application/json")


@router.get("/transcript.srt", **_caption_route_documentation(CaptionFormat.SRT))
async def get_transcript_srt(request: Request, video_id: VideoId, resources: ResourcesDep) -> Response:
    """A video's segments as SubRip subtitles; times that run backwards are put in order."""
    return await _make_caption_answer(request, video_id, resources, CaptionFormat.SRT)


@router.get("/transcript.vtt", **_caption_route_documentation(CaptionFormat.VTT))
async def get_transcript_vtt(request: Request, video_id: VideoId, resources: ResourcesDep) -> Response:
    """A video's segments as WebVTT, for `<track>`; times that run backwards are put in order."""
    return await _make_caption_answer(request, video_id, resources, CaptionFormat.VTT)


@router.get("/transcript.txt", **_caption_route_documentation(CaptionFormat.TXT))
async def get_transcript_text(request: Request, video_id: VideoId, resources: ResourcesDep) -> Response:
    """A video's transcript as plain text, a line for each segment."""
    return await _make_caption_answer(request, video_id, resources, CaptionFormat.TXT)


async def _make_caption_answer(
    request: Request, video_id: str, resources: Resources, caption_format: CaptionFormat
) -> Response:
    if refusal := await _check_preconditions(request, video_id, resources.reads, caption_format):
        return refusal
    captions = await render_captions(resources.database, video_id, caption_format)
    gzipped = accepts_gzip(request)
    headers = make_revalidation_headers(_make_transcript_etag(captions.version, gzipped, caption_format))
    headers["Content-Disposition"] = _make_inline_content_disposition(f"{video_id}.{caption_format}")
    headers["Content-Type"] = _MEDIA_TYPES[caption_format]
    if not gzipped:
        return Response(captions.body, headers=headers)
    return Response(igzip.compress(captions.body, _COMPRESSION_LEVEL), headers=headers | GZIP_ENCODING)


def _plain_transcript_answer(request: Request, body: bytes, etag: str) -> Response:
    """Return an uncompressed transcript, or the one byte range of it that is requested."""
    headers = make_revalidation_headers(etag) | {"Accept-Ranges": "bytes"}
    ranges = find_requested_ranges(request, len(body), HttpValidators(etag))
    if ranges == []:
        return unsatisfiable_range_answer(len(body), headers)
    if ranges is None or len(ranges) > 1:
        return Response(body, headers=headers, media_type="application/json")
    headers["Content-Range"] = ranges[0].make_content_range_header(len(body))
    return Response(body[ranges[0].start : ranges[0].stop], 206, headers, media_type="application/json")


async def _check_preconditions(
    request: Request, video_id: str, video_reader: BatchedVideoReader, caption_format: str = ""
) -> Response | None:
    """Return 304 or 412 where the request's ETags demand it: one index look-up, none without ETags."""
    if not has_etag_condition(request):
        return None
    etag = _make_transcript_etag(
        await video_reader.get_transcript_version(video_id), accepts_gzip(request), caption_format
    )
    return check_preconditions(request, HttpValidators(etag), make_revalidation_headers(etag))


def _make_transcript_etag(version: TranscriptVersion, gzipped: bool, caption_format: str = "") -> str:
    created_at = f"{version.created_at.timestamp() if version.created_at else 0:.6f}"
    return f'"{"-".join(filter(None, (str(version.id), created_at, caption_format, "gzip" if gzipped else "")))}"'


def _make_inline_content_disposition(name: str) -> str:
    # RFC 6266
    return f"inline; filename=\"{_UNSAFE_CHARACTER.sub('_', name)}\"; filename*=UTF-8''{quote(name, safe='')}"
