"""Connections to PostgreSQL: autocommit, pinned settings, time limits, orjson, a log of statements on demand."""

import json
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, LiteralString, Self

import orjson
import psycopg
from psycopg import AsyncConnection, AsyncCopy, AsyncCursor, sql
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_dumps, set_json_loads

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable

PINNED: Mapping[str, str] = {
    "search_path": "public",
    "client_encoding": "UTF8",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "default_transaction_isolation": "read committed",
    "session_replication_role": "origin",  # with `replica` no trigger fires and no foreign key is checked
    "gin_fuzzy_search_limit": "0",
}

# PgBouncer restores these for each client; any other setting would leak to the next client. https://www.pgbouncer.org/features.html
_TRACKED_BY_POOLERS = ("client_encoding", "TimeZone", "DateStyle", "standard_conforming_strings")

# Behind a pooler, the process id that was sent to the client is not that of the server process.
PIN_SESSION: LiteralString = """
    SELECT pg_backend_pid() <> %(pid)s, (
        SELECT count(set_config(name, value, false))
        FROM unnest(%(names)s::text[], %(values)s::text[]) AS wanted (name, value)
        JOIN pg_settings USING (name)
        WHERE setting <> value AND (source <> 'client' OR name <> ALL (%(optional)s))
          AND (pg_backend_pid() = %(pid)s OR name = ANY (%(tracked)s))
    )
"""
"""Returns whether the connection is pooled, and sets what can be set for a session. Some settings may not exist."""

PIN_TRANSACTION: LiteralString = """
    SELECT count(set_config(name, value, true))
    FROM unnest(%(names)s::text[], %(values)s::text[]) AS wanted (name, value)
    JOIN pg_settings USING (name)
    WHERE setting <> value
"""

# Behind a pooler, transactions have the settings of the role, which cannot be pinned: check them instead.
FIND_UNSUITABLE: LiteralString = """
    SELECT name, value
    FROM unnest(%(names)s::text[], %(values)s::text[]) AS wanted (name, value)
    JOIN pg_settings USING (name)
    WHERE name <> ALL (%(tracked)s) AND CASE name
        WHEN 'search_path' THEN 'public' <> ALL (current_schemas(false)) OR EXISTS (
            SELECT FROM pg_class
            WHERE relnamespace = to_regnamespace('public') AND relkind IN ('r', 'p', 'v')
              AND NOT pg_table_is_visible(oid)
        )
        WHEN 'extra_float_digits' THEN reset_val::int < 1
        ELSE reset_val <> value
    END
    ORDER BY name
"""
"""Runs in a transaction after `SET LOCAL search_path = DEFAULT`; returns the settings that the role needs."""


def make_pinned_setting_parameters(
    backend_pid: int = 0, *, forced: Mapping[str, str] = {}, optional: Mapping[str, str] = {}
) -> dict[str, Any]:
    settings = {**PINNED, **forced, **optional}
    return {
        "pid": backend_pid,
        "names": list(settings),
        "values": list(settings.values()),
        "optional": list(optional),
        "tracked": list(_TRACKED_BY_POOLERS),
    }


Connection = AsyncConnection[TupleRow]

_statement_log = logging.getLogger("app.database.statements")

# A vanished peer is detected after a minute: 30 s until the first probe, then three, 10 s apart. While data is
# unacknowledged there are no probes, and the last option (in milliseconds) sets the same limit.
_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


class LoggedCursor(AsyncCursor[TupleRow]):
    """A cursor that logs each statement with its duration, without parameters."""

    async def execute(self, query: Any, *args: Any, **options: Any) -> Self:
        with _log_statement(query):
            return await super().execute(query, *args, **options)

    async def executemany(self, query: Any, *args: Any, **options: Any) -> None:
        with _log_statement(query):
            await super().executemany(query, *args, **options)

    @asynccontextmanager
    async def copy(self, statement: Any, *args: Any, **options: Any) -> AsyncIterator[AsyncCopy]:
        with _log_statement(statement):
            async with super().copy(statement, *args, **options) as copy:
                yield copy


def make_connection_options(settings: Settings) -> dict[str, Any]:
    return {
        **_KEEPALIVE,
        "connect_timeout": settings.database_connect_timeout,
        "application_name": settings.database_application_name,
        **settings.database_parameters,
        "client_encoding": "UTF8",
        "autocommit": True,
        "prepare_threshold": None if settings.database_prepared_statements is False else 5,
        "cursor_factory": LoggedCursor if settings.database_echo else AsyncCursor,
    }


async def configure_connection(conn: AsyncConnection[Any], settings: Settings) -> None:
    """Pin the settings of a session after its start, because PgBouncer refuses startup options.

    Limits in the URL are kept. Behind a pooler nothing is set that would leak to its next client, and prepared
    statements are off unless enabled. Raises `psycopg.OperationalError` where the pooler's settings are unsuitable.
    """
    set_json_dumps(_dump_json, conn)
    set_json_loads(orjson.loads, conn)
    limits = {
        "statement_timeout": _format_milliseconds(settings.database_statement_timeout),
        "lock_timeout": _format_milliseconds(settings.database_lock_timeout),
        "idle_in_transaction_session_timeout": _format_milliseconds(settings.database_idle_transaction_timeout),
    }
    cursor = await conn.execute(PIN_SESSION, make_pinned_setting_parameters(conn.info.backend_pid, optional=limits))
    (is_behind_pooler, _) = await anext(cursor)
    if is_behind_pooler:
        if settings.database_prepared_statements is None:
            conn.prepare_threshold = None
        await _refuse_unsuitable_role_settings(conn)


async def _refuse_unsuitable_role_settings(conn: AsyncConnection[Any]) -> None:
    """Raise `psycopg.OperationalError` where the role's settings, which hold behind a pooler, differ from ours."""
    async with conn.transaction():
        await conn.execute("SET LOCAL search_path = DEFAULT")
        found = await (await conn.execute(FIND_UNSUITABLE, make_pinned_setting_parameters())).fetchall()
    if found:
        raise psycopg.OperationalError(
            "behind a connection pooler the settings of the role hold and these are needed: "
            + ", ".join(f"{name} = '{value}'" for name, value in found)
            + f"; set them with ALTER ROLE {conn.info.user} IN DATABASE {conn.info.dbname} SET"
        )


@asynccontextmanager
async def open_async_connection(settings: Settings) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(**make_connection_options(settings)) as conn:
        require_utf8_encoding(conn)
        await configure_connection(conn, settings)
        yield conn


def require_utf8_encoding(conn: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> None:
    encoding = conn.pgconn.parameter_status(b"server_encoding")
    if encoding not in (None, b"UTF8"):
        raise DatabaseUnavailable(
            f"The database {conn.info.dbname} has the encoding {encoding.decode()} and needs UTF8: name another one "
            "in DATABASE_URL and create it with `python -m app db create`"
        )


def _format_milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _dump_json(value: Any) -> bytes:
    """Serialize JSON. Raises `psycopg.DataError` for NaN, infinity, lone surrogates and integers beyond 64 bits."""
    try:
        text = orjson.dumps(value)
        if b"null" in text:  # orjson writes NaN and infinity as null
            json.dumps(value, allow_nan=False, default=str)
    except (TypeError, ValueError) as error:
        raise psycopg.DataError(f"cannot be written as JSON: {error}") from None
    return text


@contextmanager
def _log_statement(query: str | bytes | sql.Composable) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        text = query.as_string(None) if isinstance(query, sql.Composable) else query
        line = " ".join((text.decode() if isinstance(text, bytes) else text).split())
        _statement_log.info("%s [%.1f ms]", line, (time.perf_counter() - started) * 1000)
