"""`/api/videos/{id}/transcript.srt`, `.vtt` and `.txt`"""

import re
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from isal import igzip
from starlette.responses import Response

from app.api.answers import Error
from app.api.dependencies import Checkouts, VideoId
from app.api.read_route import VideoReaderDep
from app.api.transcripts import accepts_gzip, answer_unchanged, headers_of
from app.services.transcripts import CaptionFormat, read_captions
from app.services.videos import VideoReader

router = APIRouter(prefix="/api/videos/{video_id}", tags=["transcripts"])

_COMPRESSION_LEVEL = 2
_UNSAFE = re.compile(r"[^A-Za-z0-9._ -]")
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


def _documented(form: CaptionFormat) -> dict[str, Any]:
    media_type = _MEDIA_TYPES[form].partition(";")[0]
    return {
        "response_class": Response,
        "responses": {
            200: {"content": {media_type: {"schema": {"type": "string"}, "example": _EXAMPLES[form]}}},
            304: {"description": "The client's copy is still right"},
            404: {"model": Error},
        },
    }


@router.get("/transcript.srt", **_documented(CaptionFormat.SRT))
async def get_transcript_srt(
    request: Request, video_id: VideoId, reads: VideoReaderDep, database: Checkouts
) -> Response:
    """A video's segments as SubRip subtitles; times that run backwards are put in order."""
    return await _answer(request, video_id, reads, database, CaptionFormat.SRT)


@router.get("/transcript.vtt", **_documented(CaptionFormat.VTT))
async def get_transcript_vtt(
    request: Request, video_id: VideoId, reads: VideoReaderDep, database: Checkouts
) -> Response:
    """A video's segments as WebVTT, for `<track>`; times that run backwards are put in order."""
    return await _answer(request, video_id, reads, database, CaptionFormat.VTT)


@router.get("/transcript.txt", **_documented(CaptionFormat.TXT))
async def get_transcript_text(
    request: Request, video_id: VideoId, reads: VideoReaderDep, database: Checkouts
) -> Response:
    """What is said in a video, a line for each segment."""
    return await _answer(request, video_id, reads, database, CaptionFormat.TXT)


async def _answer(
    request: Request, video_id: str, reads: VideoReader, database: Checkouts, form: CaptionFormat
) -> Response:
    if unchanged := await answer_unchanged(request, video_id, reads, form):
        return unchanged
    captions = await read_captions(database, video_id, form)
    gzipped = accepts_gzip(request)
    body = igzip.compress(captions.body, _COMPRESSION_LEVEL) if gzipped else captions.body
    headers = headers_of(captions.key, gzipped, form) | {"Content-Disposition": _inline(f"{video_id}.{form}")}
    headers["Content-Type"] = _MEDIA_TYPES[form]
    return Response(body, headers=headers)


def _inline(name: str) -> str:
    """Return a Content-Disposition: RFC 6266, with the name in ASCII for those who cannot read RFC 5987."""
    return f"inline; filename=\"{_UNSAFE.sub('_', name)}\"; filename*=UTF-8''{quote(name, safe='')}"
