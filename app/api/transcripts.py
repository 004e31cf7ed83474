"""`/api/videos/{id}/transcript`"""

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.dependencies import VideoId
from app.api.read_route import ReadRoute, SharedReads
from app.api.schemas.common import Error
from app.api.schemas.transcripts import TranscriptAnswer
from app.repositories.views import TranscriptKey

reads = APIRouter(prefix="/api/videos/{video_id}/transcript", tags=["transcripts"], route_class=ReadRoute)

# A browser asks each time whether its copy is still right; the answer costs one index look-up.
_CACHE_CONTROL = "no-cache"


@reads.get(
    "",
    response_model=TranscriptAnswer,
    responses={304: {"description": "The client's copy is still right"}, 404: {"model": Error}},
)
async def get_transcript(request: Request, video_id: VideoId, reads: SharedReads) -> Response:
    """A video's transcript with the times of its words and segments, in seconds."""
    gzipped = _accepts_gzip(request.headers.get("accept-encoding", ""))
    copies = request.headers.get("if-none-match")
    if copies:
        headers = _headers(await reads.find_transcript(video_id), gzipped)
        if _matches(copies, headers["ETag"]):
            return Response(status_code=304, headers=headers)
    document = await reads.get_transcript(video_id)
    headers = _headers(document.key, gzipped)
    if gzipped:
        headers["Content-Encoding"] = "gzip"
    return Response(document.gzipped if gzipped else document.plain, headers=headers, media_type="application/json")


def _headers(key: TranscriptKey, gzipped: bool) -> dict[str, str]:
    return {"ETag": _etag(key, gzipped), "Cache-Control": _CACHE_CONTROL, "Vary": "Accept-Encoding"}


def _etag(key: TranscriptKey, gzipped: bool) -> str:
    made = key.created_at.timestamp() if key.created_at else 0
    return f'"{key.id}-{made:.6f}{"-gzip" if gzipped else ""}"'


def _matches(if_none_match: str, etag: str) -> bool:
    """RFC 9110, section 13.1.2: a list of tags, weak ones included, or `*`."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or "*" in tags


def _accepts_gzip(accept_encoding: str) -> bool:
    """RFC 9110, section 12.5.3, for the one encoding there is: `gzip` or `*`, unless its weight is 0."""
    weights = {}
    for item in accept_encoding.lower().split(","):
        name, _, weight = item.partition(";")
        weights[name.strip()] = weight.replace(" ", "").removeprefix("q=")
    weight = weights.get("gzip", weights.get("*", "0"))
    return weight.strip("0.") != "" or weight == ""
