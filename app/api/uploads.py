"""`POST /api/videos`: a video as a form or as the body itself, never whole in memory."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from app.api.answers import Error, json_answer
from app.api.dependencies import Checkouts, MediaStorage, ResourcesDep
from app.api.read_route import VideoReaderDep
from app.api.schemas.videos import UploadForm as UploadFormSchema
from app.api.schemas.videos import UploadQuery
from app.api.upload_form import ENVELOPE_BYTES, FORM_HEAD_BYTES, UploadForm, find_boundary, refuse_form
from app.api.videos import SingleVideoAnswer, find_video_answer
from app.core.errors import DeletedMeanwhile, InvalidInput, VideoNotFound
from app.services.uploads import Upload, receive_video
from app.services.videos import VideoDetails

router = APIRouter(prefix="/api/videos", tags=["videos"])

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": UploadFormSchema.model_json_schema()},
            "video/*": _BYTES,
            "application/octet-stream": _BYTES,
        },
    }
}


@router.post(
    "",
    status_code=201,
    response_model=SingleVideoAnswer,
    openapi_extra=_BODY,
    responses={
        201: {"headers": {"Location": {"description": "The video's address", "schema": {"type": "string"}}}},
        409: {"model": Error, "description": "The id is taken"},
        413: {"model": Error, "description": "More bytes than MAX_UPLOAD_BYTES"},
        422: {"model": Error, "description": "No video, or a value that cannot be stored"},
        503: {"model": Error, "description": "The database or the storage is not available"},
        507: {"model": Error, "description": "There is no room for another file"},
    },
)
async def upload_video(
    request: Request,
    query: Annotated[UploadQuery, Query()],
    database: Checkouts,
    storage: MediaStorage,
    reads: VideoReaderDep,
    resources: ResourcesDep,
) -> Response:
    """Upload a video: a form with the part `file`, or the file as the body and the rest in the query.

    Without an `id` it is made from the file's name, with a number behind it where another video has that, and without
    a `title` that too.
    """
    details = VideoDetails.from_client(query.filename, query.id, query.title, query.source_url)
    boundary = find_boundary(request.headers.get("content-type", ""))
    settings = resources.settings
    try:
        async with receive_video(database, storage, settings.max_upload_bytes, settings.max_video_hours) as upload:
            if boundary is None:
                await _receive_body(request, upload, details)
            else:
                details = await _receive_form(request, upload, details, UploadForm(boundary))
            identifier = await upload.store(details)
    except ClientDisconnect:
        raise InvalidInput("The upload ended early") from None
    try:
        answer = await find_video_answer(reads, identifier)
    except VideoNotFound:
        raise DeletedMeanwhile from None
    return json_answer(answer, 201, {"Location": f"/api/videos/{quote(identifier)}"})


async def _receive_body(request: Request, upload: Upload, details: VideoDetails) -> None:
    await upload.check_details(details, _content_length(request))
    head, content_type = b"", request.headers.get("content-type", "")
    async for chunk in request.stream():
        if len(head) < FORM_HEAD_BYTES:
            head = (head + chunk)[:FORM_HEAD_BYTES]
            refuse_form(head, content_type)
        await upload.write(chunk)


async def _receive_form(request: Request, upload: Upload, details: VideoDetails, form: UploadForm) -> VideoDetails:
    await upload.check_details(details, _content_length(request) - ENVELOPE_BYTES)
    has_started = False
    async for chunk in request.stream():
        data = form.feed(chunk)
        if form.filename is not None and not has_started:
            has_started = True
            await upload.check_details(_with_fields(details, form))
        if data:
            await upload.write(data)
    form.finish()
    return _with_fields(details, form)


def _with_fields(details: VideoDetails, form: UploadForm) -> VideoDetails:
    return VideoDetails.from_client(
        form.filename or details.filename,
        form.fields.get("id", details.identifier),
        form.fields.get("title", details.title),
        form.fields.get("source_url", details.source_url),
    )


def _content_length(request: Request) -> int:
    """Return the announced length of the body, or 0 where there is none."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0
