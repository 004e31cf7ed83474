"""Logs: readable lines on a terminal, one JSON object per line elsewhere, each with the id of its request.

No secret is in them, whoever has written the message, the traceback or the fields: see `app.core.masking`.
"""

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
from app.core.text import escape_controls

request_id: ContextVar[str] = ContextVar("request_id", default="-")

_OF_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")  # its command gives them handlers
# Loggers that repeat what this project says itself, or talk about the weather.
_QUIET = ("uvicorn.access", "psycopg.pool", "httpx", "alembic", "taskiq")


def configure_logging(settings: Settings) -> None:
    """Send every log record to standard error in the format of the settings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_prepare)
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    handler.setFormatter(_json_formatter() if as_json else _text_formatter())
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    settings.remember_secrets()
    for name in _OF_UVICORN:
        for own in logging.getLogger(name).handlers:
            if not isinstance(own.formatter, _MaskedFormatter):
                own.setFormatter(_MaskedFormatter(own.formatter or logging.Formatter()))
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


def mask_tracebacks() -> None:
    """Have Python itself print no secret: where an error ends the process or a thread, and before logs are set up."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_OneLine("%(message)s"))
    sys.excepthook = _print_masked
    threading.excepthook = lambda ended: _print_masked(ended.exc_type, ended.exc_value, ended.exc_traceback)


def _print_masked(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    sys.stderr.write(mask_secrets("".join(format_exception(kind, error, traceback))))


def _prepare(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    record.__dict__.pop("color_message", None)  # uvicorn's message once more, with colours
    return True


class _MaskedFormatter(logging.Formatter):
    """Formats as another formatter does, without secrets."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        return mask_secrets(self._formatter.format(record))


class _OneLine(logging.Formatter):
    """Shows what others have written into a message on its line, and lets none of it steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        shown = copy(record)
        shown.msg, shown.args = escape_controls(record.getMessage()), None
        return self.mask(super().format(shown))

    def mask(self, line: str) -> str:
        return mask_secrets(line)


class _JsonFormatter(_OneLine, OrjsonFormatter):
    """One JSON object per line, its time as ISO 8601 in UTC: `2026-11-27T22:43:57.874+00:00`."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Mask the fields as long as each is by itself: the end of one would not be seen in the line."""
        return dict(zip(log_data, map(mask_values, log_data.values()), strict=True))

    def mask(self, line: str) -> str:
        return line

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _json_formatter() -> logging.Formatter:
    return _JsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(request_id)s %(message)s",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
    )


def _text_formatter() -> logging.Formatter:
    return _OneLine("%(asctime)s %(levelname)-7s %(message)s  [%(name)s %(request_id)s]", "%H:%M:%S")
