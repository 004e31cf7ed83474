"""Content encoding, conditional and range requests (RFC 9110, sections 12.5.3, 13 and 14), for what has an ETag."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from app.api.answers import Error, Responses
from app.api.errors import error_answer

CONDITIONAL_RESPONSES: Responses = {
    304: {"description": "The client's copy is current"},
    412: {"model": Error, "description": "It is another version than the request requires"},
}
GZIP_ENCODING = {"Content-Encoding": "gzip"}

# A player requests one range at a time; a request for more ranges than this is meant to cause work.
_MAX_RANGES = 20
# It also keeps each number below the count of digits that `int` accepts.
_MAX_RANGE_HEADER = 1000

_TAG = re.compile(r'(W/)?("[^"]*")')
_RANGE_HEADER = re.compile(r"bytes=(.*)", re.IGNORECASE)
_RANGE = re.compile(r"(\d*)-(\d*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class HttpValidators:
    """The ETag and Last-Modified of one version of a file or document."""

    etag: str  # strong, with its quotes
    modified: datetime | None = None  # None: conditions with dates are ignored

    @property
    def last_modified(self) -> int | None:
        # Never in the future: a clock may have been wrong.
        return None if self.modified is None else int(min(self.modified.timestamp(), time.time()))

    def make_etag_headers(self) -> dict[str, str]:
        second = self.last_modified
        return {"ETag": self.etag} | ({} if second is None else {"Last-Modified": formatdate(second, usegmt=True)})


def make_revalidation_headers(etag: str) -> dict[str, str]:
    """Return the headers with which a browser keeps a document and asks each time whether it has changed."""
    return {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}


def accepts_gzip(request: Request) -> bool:
    weights = {}
    for item in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = item.partition(";")
        weights[name.strip()] = weight.replace(" ", "").removeprefix("q=")
    weight = weights.get("gzip", weights.get("*", "0"))
    return weight.strip("0.") != "" or weight == ""


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """The bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def make_content_range_header(self, total_size: int) -> str:
        return f"bytes {self.start}-{self.stop - 1}/{total_size}"


def has_etag_condition(request: Request) -> bool:
    return "if-none-match" in request.headers or "if-match" in request.headers


def check_preconditions(request: Request, validators: HttpValidators, headers: Mapping[str, str]) -> Response | None:
    """Return the 304 or 412 that a GET or HEAD must be answered with, or None where the content is to be sent."""
    if _if_match_fails(request.headers, validators):
        return error_answer(412, "The file has changed", headers)
    return Response(status_code=304, headers=headers) if _is_client_copy_current(request.headers, validators) else None


def find_requested_ranges(request: Request, total_size: int, validators: HttpValidators) -> list[ByteRange] | None:
    """Return the byte ranges to send, an empty list where none can be satisfied, or None where the whole is sent."""
    header = request.headers.get("range")
    if header is None or request.method != "GET" or not _if_range_holds(request.headers, validators):
        return None
    return parse_ranges(header, total_size)


def unsatisfiable_range_answer(total_size: int, headers: Mapping[str, str]) -> Response:
    return error_answer(416, "Range not satisfiable", {**headers, "Content-Range": f"bytes */{total_size}"})


def parse_ranges(header: str, file_size: int) -> list[ByteRange] | None:
    """Return a Range header's byte ranges of a file, joined where they overlap, or an empty list if none can be met.

    Returns None, for the whole file, for another unit, a malformed header, too many ranges, and an empty file.
    """
    match = _RANGE_HEADER.fullmatch(header)
    if match is None or file_size == 0 or len(header) > _MAX_RANGE_HEADER:
        return None
    specs = [spec for spec in map(str.strip, match[1].split(",")) if spec]
    if not 0 < len(specs) <= _MAX_RANGES:
        return None
    try:
        ranges = [_parse_range(spec, file_size) for spec in specs]
    except ValueError:
        return None
    return _merge_ranges([found for found in ranges if found is not None])


def _parse_range(spec: str, file_size: int) -> ByteRange | None:
    """Parse one `start-stop` of a Range header; None if it is behind the end of the file, ValueError if malformed."""
    match = _RANGE.fullmatch(spec)
    if match is None or spec == "-":
        raise ValueError
    first, last = match[1], match[2]
    if not first:
        length = min(int(last), file_size)
        return ByteRange(file_size - length, file_size) if length else None
    start, stop = int(first), int(last) + 1 if last else file_size
    if stop <= start and last:
        raise ValueError
    return ByteRange(start, min(stop, file_size)) if start < file_size else None


def _merge_ranges(ranges: list[ByteRange]) -> list[ByteRange]:
    merged: list[ByteRange] = []
    for each in sorted(ranges):
        if merged and each.start <= merged[-1].stop:
            merged[-1] = ByteRange(merged[-1].start, max(merged[-1].stop, each.stop))
        else:
            merged.append(each)
    return ranges if len(merged) == len(ranges) else merged  # in the order of the request where none overlap


def _if_match_fails(headers: Headers, validators: HttpValidators) -> bool:
    if "if-match" in headers:
        return not _lists_etag(headers, "if-match", validators.etag, weakly=False)
    date, modified = _http_date_to_unix_seconds(headers.get("if-unmodified-since")), validators.last_modified
    return date is not None and modified is not None and modified > date


def _is_client_copy_current(headers: Headers, validators: HttpValidators) -> bool:
    if "if-none-match" in headers:
        return _lists_etag(headers, "if-none-match", validators.etag, weakly=True)
    date, modified = _http_date_to_unix_seconds(headers.get("if-modified-since")), validators.last_modified
    return date is not None and modified is not None and modified <= date


def _if_range_holds(headers: Headers, validators: HttpValidators) -> bool:
    wanted = headers.get("if-range")
    if wanted is None or wanted == validators.etag:
        return True
    # A date identifies a version only after the second that it names is over.
    modified = validators.last_modified
    return modified is not None and _http_date_to_unix_seconds(wanted) == modified < int(time.time())


def _lists_etag(headers: Headers, header_name: str, etag: str, *, weakly: bool) -> bool:
    values = headers.getlist(header_name)
    tags = [tag for value in values for weak, tag in _TAG.findall(value) if weakly or not weak]
    return etag in tags or any(value.strip() == "*" for value in values)


def _http_date_to_unix_seconds(text: str | None) -> int | None:
    try:
        date = parsedate_to_datetime(text or "")
        return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None
