"""A PostgreSQL connection as this project wants it: autocommit, UTC, limits, orjson, statements logged on demand."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.abc import Params, QueryNoTemplate
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_dumps, set_json_loads

from app.core.config import Settings

Connection = AsyncConnection[TupleRow]

_statements = logging.getLogger("app.database.statements")

# How long a peer that has silently gone may look alive: 30 s until the first probe, then three, 10 s apart.
_KEEPALIVE = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


class LoggedCursor(AsyncCursor[TupleRow]):
    """A cursor that logs each statement with its time in milliseconds, and never its parameters."""

    async def execute(self, query: QueryNoTemplate, params: Params | None = None, **options: Any) -> "LoggedCursor":
        started = time.perf_counter()
        try:
            await super().execute(query, params, **options)
        finally:
            _statements.info("%s [%.1f ms]", _text(query), (time.perf_counter() - started) * 1000)
        return self


def connection_options(settings: Settings) -> dict[str, Any]:
    """Return the arguments of `AsyncConnection.connect` for the application's database."""
    return {
        **_KEEPALIVE,
        "connect_timeout": settings.database_connect_timeout,
        "application_name": settings.database_application_name,
        **settings.database_parameters,
        "autocommit": True,
        "prepare_threshold": 5 if settings.database_prepared_statements else None,
        "cursor_factory": LoggedCursor if settings.database_echo else AsyncCursor,
    }


async def configure_connection(conn: AsyncConnection[Any], settings: Settings) -> None:
    """Set what must not be sent as a start-up option, because a PgBouncer refuses those."""
    set_json_dumps(orjson.dumps, conn)
    set_json_loads(orjson.loads, conn)
    await conn.execute(
        """
        SELECT set_config('TimeZone', 'UTC', false),
               set_config('statement_timeout', %(statement)s, false),
               set_config('lock_timeout', %(lock)s, false),
               set_config('idle_in_transaction_session_timeout', %(idle)s, false)
        """,
        {
            "statement": _milliseconds(settings.database_statement_timeout),
            "lock": _milliseconds(settings.database_lock_timeout),
            "idle": _milliseconds(settings.database_idle_transaction_timeout),
        },
    )


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Connection]:
    """Open one connection outside the pool, for the command line."""
    async with await psycopg.AsyncConnection.connect(**connection_options(settings)) as conn:
        await configure_connection(conn, settings)
        yield conn


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _text(query: QueryNoTemplate) -> str:
    if isinstance(query, bytes):
        query = query.decode()
    return " ".join((query if isinstance(query, str) else query.as_string(None)).split())
