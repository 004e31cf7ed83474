"""`/api/videos/{id}/transcript`"""

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.dependencies import VideoId
from app.api.read_route import ReadRoute, SharedReads
from app.api.schemas.common import Error
from app.api.schemas.transcripts import TranscriptAnswer
from app.repositories.views import TranscriptKey
from app.services.reads import Reads

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
    gzipped = accepts_gzip(request)
    if unchanged := await answer_unchanged(request, video_id, reads):
        return unchanged
    document = await reads.get_transcript(video_id)
    headers = headers_of(document.key, gzipped)
    return Response(document.gzipped if gzipped else document.plain, headers=headers, media_type="application/json")


async def answer_unchanged(request: Request, video_id: str, reads: Reads, form: str = "") -> Response | None:
    """Return 304 where the client's copy of a transcript in the format `form` is still right: one index look-up."""
    copies = request.headers.get("if-none-match")
    if not copies:
        return None
    headers = headers_of(await reads.find_transcript(video_id), accepts_gzip(request), form)
    headers.pop("Content-Encoding", None)
    return Response(status_code=304, headers=headers) if _matches(copies, headers["ETag"]) else None


def headers_of(key: TranscriptKey, gzipped: bool, form: str = "") -> dict[str, str]:
    """Return the headers of a transcript in the format `form`: each has ETags of its own."""
    headers = {"ETag": _etag(key, gzipped, form), "Cache-Control": _CACHE_CONTROL, "Vary": "Accept-Encoding"}
    return headers | {"Content-Encoding": "gzip"} if gzipped else headers


def _etag(key: TranscriptKey, gzipped: bool, form: str) -> str:
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
