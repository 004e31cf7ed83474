"""What `If-…` headers ask: RFC 9110, section 13."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from typing import Literal

from starlette.datastructures import Headers

_TAG = re.compile(r'(W/)?("[^"]*")')


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells one state of a file from another."""

    etag: str  # strong, with its quotes
    modified: datetime

    @property
    def second(self) -> int:
        """The second it was modified in, never one to come: a clock may have been wrong."""
        return int(min(self.modified.timestamp(), time.time()))

    def headers(self) -> dict[str, str]:
        return {"ETag": self.etag, "Last-Modified": formatdate(self.second, usegmt=True)}


def failed_condition(headers: Headers, validators: Validators) -> Literal[304, 412] | None:
    """Return the status that a GET or HEAD must be answered with, or None where it is answered as usual."""
    if "if-match" in headers:
        if not _lists(headers, "if-match", validators.etag, weakly=False):
            return 412
    elif (date := _parse_date(headers.get("if-unmodified-since"))) is not None and validators.second > date:
        return 412
    if "if-none-match" in headers:
        if _lists(headers, "if-none-match", validators.etag, weakly=True):
            return 304
    elif (date := _parse_date(headers.get("if-modified-since"))) is not None and validators.second <= date:
        return 304
    return None


def range_still_fits(headers: Headers, validators: Validators) -> bool:
    """Whether `If-Range`, where there is one, names the file as it is now, so that its parts fit together."""
    wanted = headers.get("if-range")
    if wanted is None or wanted == validators.etag:
        return True
    # A date tells two states apart only when the second it names is over.
    return _parse_date(wanted) == validators.second < int(time.time())


def _lists(headers: Headers, name: str, etag: str, *, weakly: bool) -> bool:
    values = headers.getlist(name)
    tags = [tag for value in values for weak, tag in _TAG.findall(value) if weakly or not weak]
    return etag in tags or any(value.strip() == "*" for value in values)


def _parse_date(text: str | None) -> int | None:
    """Return seconds since 1970; None for what is no date, which a condition then does not have."""
    try:
        date = parsedate_to_datetime(text or "")
        return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None
