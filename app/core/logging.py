"""Logs: readable lines on a terminal, one JSON object per line elsewhere, each with the id of its request."""

import logging
import sys
from contextvars import ContextVar
from copy import copy
from datetime import UTC, datetime

from pythonjsonlogger.orjson import OrjsonFormatter

from app.core.config import Settings
from app.core.text import escape_controls

request_id: ContextVar[str] = ContextVar("request_id", default="-")

# Loggers that repeat what this project says itself, or talk about the weather.
_QUIET = ("uvicorn.access", "psycopg.pool", "httpx", "alembic", "taskiq")


def configure_logging(settings: Settings) -> None:
    """Send every log record to standard error in the format of the settings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_prepare)
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    handler.setFormatter(_json_formatter() if as_json else _text_formatter())
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


def _prepare(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    record.__dict__.pop("color_message", None)  # uvicorn's message once more, with colours
    return True


class _OneLine(logging.Formatter):
    """Shows what others have written into a message on its line, and lets none of it steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        shown = copy(record)
        shown.msg, shown.args = escape_controls(record.getMessage()), None
        return super().format(shown)


class _JsonFormatter(_OneLine, OrjsonFormatter):
    """One JSON object per line, its time as ISO 8601 in UTC: `2026-11-27T22:43:57.874+00:00`."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _json_formatter() -> logging.Formatter:
    return _JsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(request_id)s %(message)s",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
    )


def _text_formatter() -> logging.Formatter:
    return _OneLine("%(asctime)s %(levelname)-7s %(message)s  [%(name)s %(request_id)s]", "%H:%M:%S")
