"""Logs: readable lines on a terminal, one JSON object per line elsewhere, each with the id of its request.

Secrets in messages, tracebacks and fields are masked (`app.core.masking`), and control characters are escaped: a line
that is not indented begins a record.
"""

import json
import logging
import sys
import threading
from contextvars import ContextVar
from copy import copy
from datetime import UTC, datetime
from traceback import format_exception
from types import TracebackType
from typing import Any

from pythonjsonlogger.orjson import OrjsonFormatter

from app.core.config import Settings
from app.core.masking import mask_secrets, mask_values
from app.core.text import escape_and_indent_lines, escape_controls, escape_json

request_id: ContextVar[str] = ContextVar("request_id", default="-")

_OF_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")  # they get handlers from its command line
# Noisy third-party loggers, and those that repeat this project's own records.
_QUIET = ("uvicorn.access", "psycopg.pool", "httpx", "alembic", "taskiq")


def configure_logging(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_add_request_id)
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    formatter = (
        _JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(request_id)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
        if as_json
        else _EscapingFormatter("%(asctime)s %(levelname)-7s %(message)s  [%(name)s %(request_id)s]", "%H:%M:%S")
    )
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    settings.remember_secrets()
    for name in _OF_UVICORN:
        for own in logging.getLogger(name).handlers:
            if not isinstance(own.formatter, _MaskedFormatter):
                own.setFormatter(_MaskedFormatter(own.formatter or logging.Formatter()))
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


def mask_tracebacks() -> None:
    """Have Python itself print uncaught errors, and logs before they are set up, without secrets."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_EscapingFormatter("%(message)s"))
    sys.excepthook = _print_masked_traceback
    threading.excepthook = lambda ended: _print_masked_traceback(ended.exc_type, ended.exc_value, ended.exc_traceback)


def _print_masked_traceback(
    kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
) -> None:
    text = mask_secrets("".join(format_exception(kind, error, traceback)))
    sys.stderr.write(f"{escape_and_indent_lines(text.rstrip())}\n")


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    record.__dict__.pop("color_message", None)  # uvicorn's message once more, with colours
    return True


class _MaskedFormatter(logging.Formatter):
    """Formats as another formatter does, without secrets and control characters, but with its own colours."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        shown = copy(record)
        if "color_message" not in record.__dict__:  # uvicorn's own words, which are to be formatted with colours
            shown.msg, shown.args = escape_controls(record.getMessage().rstrip()), None
        if record.exc_info:
            shown.exc_text = escape_and_indent_lines(
                "\n" + self._formatter.formatException(record.exc_info)
            ).removeprefix("\n")
        return mask_secrets(self._formatter.format(shown))


class _EscapingFormatter(logging.Formatter):
    """Escapes the control characters of a message, and those of the traceback below it, whose lines are indented."""

    def format(self, record: logging.LogRecord) -> str:
        shown = copy(record)
        shown.msg, shown.args = escape_controls(record.getMessage()), None
        return self.escape_line(super().format(shown))

    def escape_line(self, line: str) -> str:
        return escape_and_indent_lines(mask_secrets(line))


class _JsonFormatter(_EscapingFormatter, OrjsonFormatter):
    """One JSON object per line, its time as ISO 8601 in UTC: `2026-11-27T22:43:57.874+00:00`."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(log_data, map(mask_values, log_data.values()), strict=True))

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        try:
            return super().jsonify_log_record(log_data)
        except TypeError:  # a lone surrogate, which UTF-8 cannot encode, as in the name of a file
            return json.dumps(log_data, default=str)

    def escape_line(self, line: str) -> str:
        return escape_json(line)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
