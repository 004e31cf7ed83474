"""`POST /api/videos`: a video as a form or as the body itself, never whole in memory."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast
from urllib.parse import quote, unquote_to_bytes

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from app.api.answers import Error, json_answer
from app.api.dependencies import ResourcesDep
from app.api.errors import describe_content_type
from app.api.videos import SOURCE_URL_DESCRIPTION, SingleVideoAnswer, make_video_answer
from app.core.errors import InvalidInput, SizeLimitExceeded, VideoDeletedMeanwhile, VideoNotFound
from app.services.uploads import UploadDetails, VideoUpload, open_video_upload

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

router = APIRouter(prefix="/api/videos", tags=["videos"])

_FORM_FIELDS = frozenset({"id", "title", "source_url"})
_FILE_FIELD = "file"
_DAMAGED_FORM = "The form is damaged"
_OTHER_BOUNDARY = "The form does not begin with the boundary that its Content-Type names"
_MAX_ENVELOPE_BYTES = 64 * 1024  # of a form without its file: names and values, headers and boundaries
_FORM_HEAD_BYTES = 1024  # of a body, within which a form can be recognised
# Escapes of browsers in the name of a file; a percent sign itself is not escaped.
# https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data
_BROWSER_ESCAPES: Mapping[str, str] = {"%22": '"', "%0D": "\r", "%0A": "\n"}
_BROWSER_ESCAPE = re.compile("|".join(_BROWSER_ESCAPES), re.IGNORECASE)
# `filename*=UTF-8''na%C3%AFve.mp4` (RFC 8187); a quoted string before it is skipped whole.
_EXTENDED_NAME = re.compile(
    r"""(?:"(?:[^"\\]|\\.)*"|[^"])*?;\s*filename\*\s*=\s*"?([\w-]+)'[\w-]*'([^;"\s]*)""", re.IGNORECASE | re.ASCII
)
# Types of a body that is certainly not a video. Any other type is accepted: the content decides.
_OTHER_TYPES = re.compile(rb"text/.*|multipart/.*|application/(json|xml|x-www-form-urlencoded)|.*\+(json|xml)")


class _UploadFields(BaseModel):
    """The details of a video that a query and a form can give."""

    id: str = Field("", max_length=255, description="Without / ? # % and control characters", examples=["demo-talk"])
    title: str = Field("", max_length=500, description="Title of the video", examples=["Demo Talk"])
    source_url: str = Field(
        "", max_length=4096, description=SOURCE_URL_DESCRIPTION, examples=["https://cdn.example/talk.mp4"]
    )


class UploadQuery(_UploadFields):
    """The details of a video that is sent as the body itself."""

    filename: str = Field("", max_length=1024, description="For a missing id and title", examples=["Demo Talk.mp4"])


class UploadForm(_UploadFields):
    """A video as a form, the parts in any order."""

    file: bytes = Field(description="The video; its name is used like `filename` of the query")


def _find_form_boundary(content_type: str) -> bytes | None:
    """Return the boundary of `multipart/form-data`, None for a video as the body itself. Raises for other types."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind == b"multipart/form-data" and boundary:
        return boundary
    if _OTHER_TYPES.fullmatch(kind):
        raise InvalidInput(
            "Send the video as multipart/form-data with a boundary, or as the body with a type as video/mp4 or "
            f"application/octet-stream, {describe_content_type(content_type)}"
        )
    return None


def _refuse_form_as_body(body_start: bytes, content_type: str) -> None:
    if body_start.startswith(b"--") and b"content-disposition: form-data" in body_start.lower():
        found = describe_content_type(content_type)
        raise InvalidInput(f"The body is a form: send it as multipart/form-data with its boundary, {found}")


class UploadFormParser:
    """Incremental parser of an upload form: `feed` each chunk, then `finish`. Raises `InvalidInput`."""

    def __init__(self, boundary: bytes) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None  # None before the file begins
        self._name = ""
        self._header = [b"", b""]
        self._disposition = b""
        self._value = bytearray()
        self._file_pieces: list[bytes] = []
        self._envelope = 0
        self._has_begun = self._has_ended = False
        try:
            self._parser = MultipartParser(boundary, self._list_parser_callbacks())
        except FormParserError:
            raise InvalidInput("The boundary of the form is too long") from None

    def feed(self, chunk: bytes) -> bytes:
        """Parse a chunk and return the bytes of the file in it. Raises `SizeLimitExceeded` for too long fields."""
        self._file_pieces.clear()
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise InvalidInput(_DAMAGED_FORM if self._has_begun else _OTHER_BOUNDARY) from None
        data = b"".join(self._file_pieces)
        self._envelope += len(chunk) - len(data)
        if self._envelope > _MAX_ENVELOPE_BYTES:
            raise SizeLimitExceeded(f"The fields of a form may have at most {_MAX_ENVELOPE_BYTES} bytes")
        return data

    def finish(self) -> None:
        """Raise `InvalidInput` if the form is not complete or has no file."""
        if not self._has_ended:
            raise InvalidInput("The form ended early")
        if self.filename is None:
            raise InvalidInput("The form has no file")

    def _list_parser_callbacks(self) -> "MultipartCallbacks":
        callbacks: dict[str, Callable[..., Any]] = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._read_part_name,
            "on_part_data": self._add_part_data,
            "on_part_end": self._end_part,
            "on_end": self._end_form,
        }
        return cast("MultipartCallbacks", callbacks)

    def _begin_part(self) -> None:
        self._has_begun = True
        self._disposition = b""
        self._value.clear()

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = [b"", b""]

    def _read_part_name(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        self._name = _decode_form_value("The name of a field", options.get(b"name", b""))
        if self._name == _FILE_FIELD:
            if self.filename is not None:
                raise InvalidInput("The form has more than one file")
            self.filename = _read_filename(self._disposition.decode("latin-1"), options.get(b"filename", b""))
        elif self._name not in _FORM_FIELDS:
            raise InvalidInput("A form has the fields file, id, title and source_url, and no others")
        elif self._name in self.fields:
            raise InvalidInput(f"The form has more than one {self._name}")

    def _add_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == _FILE_FIELD:
            self._file_pieces.append(data[start:end])
        else:
            self._value += data[start:end]

    def _end_part(self) -> None:
        if self._name != _FILE_FIELD:
            self.fields[self._name] = _decode_form_value(self._name, bytes(self._value))

    def _end_form(self) -> None:
        self._has_ended = True


def _read_filename(disposition: str, filename: bytes) -> str:
    """Return the file's name of a Content-Disposition: its `filename*`, else the given value of `filename`."""
    if extended := _EXTENDED_NAME.match(disposition):
        charset, value = extended.groups()
        if charset.lower() not in ("utf-8", "iso-8859-1"):
            raise InvalidInput("The charset of filename* must be UTF-8")
        decoded = unquote_to_bytes(value)
        return (
            _decode_form_value("The file's name", decoded) if charset.lower() == "utf-8" else decoded.decode("latin-1")
        )
    name = _decode_form_value("The file's name", filename)
    return _BROWSER_ESCAPE.sub(lambda escape: _BROWSER_ESCAPES[escape[0].upper()], name)


def _decode_form_value(field_name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{field_name} is not UTF-8") from None


_BYTES = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": UploadForm.model_json_schema()},
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
async def upload_video(request: Request, query: Annotated[UploadQuery, Query()], resources: ResourcesDep) -> Response:
    """Upload a video: a form with the part `file`, or the file as the body and the rest in the query.

    A missing `id` and `title` are derived from the file's name; an `id` that is taken already gets a number.
    """
    details = UploadDetails.from_client(query.filename, query.id, query.title, query.source_url)
    boundary = _find_form_boundary(request.headers.get("content-type", ""))
    settings = resources.settings
    try:
        async with open_video_upload(
            resources.database, resources.storage, settings.max_upload_bytes, settings.max_video_hours
        ) as upload:
            if boundary is None:
                await _receive_video_body(request, upload, details)
            else:
                details = await _receive_video_form(request, upload, details, UploadFormParser(boundary))
            identifier = await upload.store_as_video(details)
    except ClientDisconnect:
        raise InvalidInput("The upload ended early") from None
    try:
        answer = await make_video_answer(resources.reads, identifier)
    except VideoNotFound:
        raise VideoDeletedMeanwhile from None
    return json_answer(answer, 201, {"Location": f"/api/videos/{quote(identifier)}"})


async def _receive_video_body(request: Request, upload: VideoUpload, details: UploadDetails) -> None:
    await upload.check_upload_details(details, _announced_body_length(request))
    head, content_type = b"", request.headers.get("content-type", "")
    async for chunk in request.stream():
        if len(head) < _FORM_HEAD_BYTES:
            head = (head + chunk)[:_FORM_HEAD_BYTES]
            _refuse_form_as_body(head, content_type)
        await upload.write_chunk(chunk)


async def _receive_video_form(
    request: Request, upload: VideoUpload, details: UploadDetails, form: UploadFormParser
) -> UploadDetails:
    await upload.check_upload_details(details, _announced_body_length(request) - _MAX_ENVELOPE_BYTES)
    has_started = False
    async for chunk in request.stream():
        data = form.feed(chunk)
        if form.filename is not None and not has_started:
            has_started = True
            await upload.check_upload_details(_merge_form_details(details, form))
        if data:
            await upload.write_chunk(data)
    form.finish()
    return _merge_form_details(details, form)


def _merge_form_details(details: UploadDetails, form: UploadFormParser) -> UploadDetails:
    return UploadDetails.from_client(
        form.filename or details.filename,
        form.fields.get("id", details.identifier),
        form.fields.get("title", details.title),
        form.fields.get("source_url", details.source_url),
    )


def _announced_body_length(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0
