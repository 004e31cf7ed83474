"""`/api/videos/{id}/transcript`"""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.answers import Error
from app.api.byte_ranges import parse_ranges
from app.api.dependencies import VideoId
from app.api.errors import error_answer
from app.api.read_route import ReadRoute, VideoReaderDep
from app.api.schemas.transcripts import TranscriptAnswer
from app.repositories.transcripts import TranscriptVersion
from app.services.videos import VideoReader

reads = APIRouter(prefix="/api/videos/{video_id}/transcript", tags=["transcripts"], route_class=ReadRoute)

# A browser asks each time whether its copy is still right; the answer costs one index look-up.
_CACHE_CONTROL = "no-cache"
_PART = {"application/json": {"schema": {"type": "string", "format": "binary"}}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    206: {"description": "The part that `Range` asks for", "content": _PART},
    304: {"description": "The client's copy is still right"},
    404: {"model": Error},
    416: {"model": Error, "description": "The transcript has no such part; `Content-Range` names its size"},
}


@reads.get(
    "",
    response_model=TranscriptAnswer,
    responses=RESPONSES,
)
async def get_transcript(request: Request, video_id: VideoId, reads: VideoReaderDep) -> Response:
    """A video's transcript with the times of its words and segments, in seconds."""
    gzipped = accepts_gzip(request)
    if unchanged := await answer_unchanged(request, video_id, reads):
        return unchanged
    document = await reads.get_transcript(video_id)
    headers = headers_of(document.key, gzipped)
    if gzipped:
        return Response(document.gzipped, headers=headers, media_type="application/json")
    return _answer_plain(request, document.plain, headers)


def _answer_plain(request: Request, body: bytes, headers: dict[str, str]) -> Response:
    """Answer with the whole, or with the one part that is asked for."""
    headers = {**headers, "Accept-Ranges": "bytes"}
    wanted = request.headers.get("range", "") if request.method == "GET" else ""
    is_of_this = request.headers.get("if-range", headers["ETag"]) == headers["ETag"]
    ranges = parse_ranges(wanted, len(body)) if is_of_this else None
    if ranges == []:
        return error_answer(416, "Range not satisfiable", {**headers, "Content-Range": f"bytes */{len(body)}"})
    if ranges is None or len(ranges) > 1:
        return Response(body, headers=headers, media_type="application/json")
    start, stop = ranges[0].start, ranges[0].stop
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
    return Response(body[start:stop], 206, headers, media_type="application/json")


async def answer_unchanged(request: Request, video_id: str, reads: VideoReader, form: str = "") -> Response | None:
    """Return 304 where the client's copy of a transcript in the format `form` is still right: one index look-up."""
    copies = request.headers.get("if-none-match")
    if not copies:
        return None
    headers = headers_of(await reads.find_transcript(video_id), accepts_gzip(request), form)
    headers.pop("Content-Encoding", None)
    return Response(status_code=304, headers=headers) if _matches(copies, headers["ETag"]) else None


def headers_of(key: TranscriptVersion, gzipped: bool, form: str = "") -> dict[str, str]:
    """Return the headers of a transcript in the format `form`: each has ETags of its own."""
    headers = {"ETag": _etag(key, gzipped, form), "Cache-Control": _CACHE_CONTROL, "Vary": "Accept-Encoding"}
    return headers | {"Content-Encoding": "gzip"} if gzipped else headers


def _etag(key: TranscriptVersion, gzipped: bool, form: str) -> str:
    made = f"{key.created_at.timestamp() if key.created_at else 0:.6f}"
    return f'"{"-".join(filter(None, (str(key.id), made, form, "gzip" if gzipped else "")))}"'


def _matches(if_none_match: str, etag: str) -> bool:
    """RFC 9110, section 13.1.2: a list of tags, weak ones included, or `*`."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or "*" in tags


def accepts_gzip(request: Request) -> bool:
    """RFC 9110, section 12.5.3, for the one encoding there is: `gzip` or `*`, unless its weight is 0."""
    weights = {}
    for item in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = item.partition(";")
        weights[name.strip()] = weight.replace(" ", "").removeprefix("q=")
    weight = weights.get("gzip", weights.get("*", "0"))
    return weight.strip("0.") != "" or weight == ""
