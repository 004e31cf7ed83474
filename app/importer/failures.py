"""Why a video was not imported, in one sentence that names the cause."""

import re

import psycopg

from app.core.errors import DatabaseUnavailable
from app.database.errors import describe_database_failure, domain_error

# Classes 08 connection and 53 out of resources, 57P0x a server that stops or starts, 25006 one that takes no changes,
# 42501 a right that lacks: no other video would fare better.
_GONE = re.compile(r"08...|53...|57P0.|25006|42501")
# What keeps one video out and lets the others in.
_OWN = {
    "40001": "another transaction changed its rows at the same time",
    "40P01": "another transaction and its own waited for each other",
    "55P03": "another transaction held its rows for too long",
    "57014": "PostgreSQL stopped one of its statements",
}


def gone_database(error: psycopg.Error) -> DatabaseUnavailable | None:
    """Return what to raise where PostgreSQL answers nobody, or None where `error` is about one video."""
    if _GONE.fullmatch(error.sqlstate or ""):
        return DatabaseUnavailable(describe_database_failure(error, {}) or "The database is not available")
    return None


def failure_reason(error: Exception) -> str:
    """Return one sentence for what kept a video out."""
    if not isinstance(error, psycopg.Error):
        return str(error) or type(error).__name__
    if sentence := _OWN.get(error.sqlstate or ""):
        return _with_cause(sentence, error)
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return _with_cause("the connection broke while it was written", error)
    return str(domain_error(error) or error) or type(error).__name__


def _with_cause(sentence: str, error: psycopg.Error) -> str:
    cause = error.diag.message_primary or next(iter(str(error).splitlines()), "")
    return f"{sentence}: {cause}" if cause else sentence
