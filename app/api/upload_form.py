"""A form with a video in it, parsed while it arrives: its fields are kept, the file's bytes are passed on."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.core.errors import InvalidInput, TooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELDS = frozenset({"id", "title", "source_url"})
_FILE = "file"
_DAMAGED = "The form is damaged"
_OTHER_BOUNDARY = "The form does not begin with the boundary that its Content-Type names"
# Bytes of a form that are not the file's: names and values, headers and boundaries.
ENVELOPE_BYTES = 64 * 1024
# What browsers escape in the name of a file, and nothing else, not even the percent sign.
# https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data
_BROWSER_ESCAPES: Mapping[str, str] = {"%22": '"', "%0D": "\r", "%0A": "\n"}
_BROWSER_ESCAPE = re.compile("|".join(_BROWSER_ESCAPES), re.IGNORECASE)
# `filename*=UTF-8''na%C3%AFve.mp4` (RFC 8187); a quoted string before it is skipped whole.
_EXTENDED_NAME = re.compile(
    r"""(?:"(?:[^"\\]|\\.)*"|[^"])*?;\s*filename\*\s*=\s*"?([\w-]+)'[\w-]*'([^;"\s]*)""", re.IGNORECASE | re.ASCII
)


# Bytes of a body in which a form shows that it is one.
FORM_HEAD_BYTES = 1024
# Types of a body that say that it is no video. A video of any other type is taken: only its bytes tell what it is.
_OTHER_KINDS = re.compile(rb"text/.*|multipart/.*|application/(json|xml|x-www-form-urlencoded)|.*\+(json|xml)")
_LONGEST_TYPE = 100


def find_boundary(content_type: str) -> bytes | None:
    """Return the boundary of `multipart/form-data`, or None for a body that is the file itself.

    Raises `InvalidInput` for a form of another kind, and for a type that no video has.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind == b"multipart/form-data" and boundary:
        return boundary
    if _OTHER_KINDS.fullmatch(kind):
        raise InvalidInput(
            "Send the video as multipart/form-data with a boundary, or as the body with a type as video/mp4 or "
            f"application/octet-stream, {_describe_type(content_type)}"
        )
    return None


def refuse_form(head: bytes, content_type: str) -> None:
    """Raises `InvalidInput` where the first bytes of a body that is to be the file itself are those of a form."""
    if head.startswith(b"--") and b"content-disposition: form-data" in head.lower():
        found = _describe_type(content_type)
        raise InvalidInput(f"The body is a form: send it as multipart/form-data with its boundary, {found}")


def _describe_type(content_type: str) -> str:
    shown = content_type[:_LONGEST_TYPE].strip()
    return f"not as {shown}" if shown and shown.isprintable() else "not without a Content-Type"


class UploadForm:
    """`feed` it what arrives, then `finish`. Raises `InvalidInput` for what is no such form."""

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
            self._parser = MultipartParser(boundary, self._callbacks())
        except FormParserError:
            raise InvalidInput("The boundary of the form is too long") from None

    def feed(self, chunk: bytes) -> bytes:
        """Return those of the bytes that are the file's. Raises `TooLarge` where the rest has too many."""
        self._file_pieces.clear()
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise InvalidInput(_DAMAGED if self._has_begun else _OTHER_BOUNDARY) from None
        data = b"".join(self._file_pieces)
        self._envelope += len(chunk) - len(data)
        if self._envelope > ENVELOPE_BYTES:
            raise TooLarge(f"The fields of a form may have at most {ENVELOPE_BYTES} bytes")
        return data

    def finish(self) -> None:
        if not self._has_ended:
            raise InvalidInput("The form ended early")
        if self.filename is None:
            raise InvalidInput("The form has no file")

    def _callbacks(self) -> "MultipartCallbacks":
        callbacks: dict[str, Callable[..., Any]] = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
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

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        self._name = _decode("The name of a field", options.get(b"name", b""))
        if self._name == _FILE:
            if self.filename is not None:
                raise InvalidInput("The form has more than one file")
            self.filename = _read_filename(self._disposition.decode("latin-1"), options.get(b"filename", b""))
        elif self._name not in FIELDS:
            raise InvalidInput("A form has the fields file, id, title and source_url, and no others")
        elif self._name in self.fields:
            raise InvalidInput(f"The form has more than one {self._name}")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == _FILE:
            self._file_pieces.append(data[start:end])
        else:
            self._value += data[start:end]

    def _end_part(self) -> None:
        if self._name != _FILE:
            self.fields[self._name] = _decode(self._name, bytes(self._value))

    def _end(self) -> None:
        self._has_ended = True


def _read_filename(disposition: str, plain: bytes) -> str:
    """Return the name of the file: `filename*` counts before `filename`."""
    if extended := _EXTENDED_NAME.match(disposition):
        charset, value = extended.groups()
        if charset.lower() not in ("utf-8", "iso-8859-1"):
            raise InvalidInput("The charset of filename* must be UTF-8")
        decoded = unquote_to_bytes(value)
        return _decode("The file's name", decoded) if charset.lower() == "utf-8" else decoded.decode("latin-1")
    name = _decode("The file's name", plain)
    return _BROWSER_ESCAPE.sub(lambda escape: _BROWSER_ESCAPES[escape[0].upper()], name)


def _decode(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{name} is not UTF-8") from None
