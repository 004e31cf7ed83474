"""What endpoints ask for. It is given by coroutines: FastAPI calls a plain function in a thread."""

from typing import Annotated

from fastapi import Depends, Path, Query, Request
from pydantic import AfterValidator
from redis.asyncio import Redis

from app.core.errors import MomentNotFound, RunNotFound, VideoNotFound
from app.core.text import is_valid_identifier, to_nfc
from app.database import Connection, Database, get_connection, get_db
from app.resources import Resources
from app.storage import Storage


async def get_resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


ResourcesDep = Annotated[Resources, Depends(get_resources)]


async def get_database(request: Request) -> Database:
    """Return the database, for endpoints that also wait for something else than a connection."""
    return (await get_resources(request)).database


async def get_storage(request: Request) -> Storage:
    return (await get_resources(request)).storage


async def get_live_state(request: Request) -> Redis:
    return (await get_resources(request)).redis


AutocommitConnection = Annotated[Connection, Depends(get_connection, scope="function")]
# Committed before the answer is sent; for a route whose answer needs no other connection.
TransactionConnection = Annotated[Connection, Depends(get_db, scope="function")]
Checkouts = Annotated[Database, Depends(get_database)]
MediaStorage = Annotated[Storage, Depends(get_storage)]
LiveState = Annotated[Redis, Depends(get_live_state)]


def normalize_identifier(identifier: str, not_found: Exception) -> str:
    """Return an identifier in the form that is stored (NFC). Raises `not_found` where none can be stored like it."""
    if not is_valid_identifier(identifier):
        raise not_found
    return to_nfc(identifier)


def normalize_video_id(identifier: str) -> str:
    """Raises `VideoNotFound`."""
    return normalize_identifier(identifier, VideoNotFound())


_VIDEO_ID = Path(description="Identifier of the video", examples=["motivation"])
VideoId = Annotated[str, _VIDEO_ID, AfterValidator(normalize_video_id)]
# Where the error names the video, and where a route answers for a video that does not exist, too.
NamedVideoId = Annotated[str, _VIDEO_ID, AfterValidator(lambda text: normalize_identifier(text, VideoNotFound(text)))]
UnknownVideoId = Annotated[str, _VIDEO_ID, AfterValidator(to_nfc)]
MomentId = Annotated[
    str,
    Path(description="Identifier of the moment", examples=["7621a017eec7482f"]),
    AfterValidator(lambda text: normalize_identifier(text, MomentNotFound())),
]
RunIdentifier = Annotated[str, AfterValidator(lambda text: normalize_identifier(text, RunNotFound()))]
Limit = Annotated[int | None, Query(ge=1, le=1000, description="Most items to return")]
