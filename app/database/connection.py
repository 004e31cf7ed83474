"""A PostgreSQL connection as this project wants it: autocommit, pinned settings, limits, orjson, a log on demand."""

import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import orjson
import psycopg
from psycopg import AsyncConnection, AsyncCopy, AsyncCursor, sql
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_dumps, set_json_loads

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable
from app.database.session import FIND_UNSUITABLE, PIN_SESSION, describe_unsuitable, pin_parameters

Connection = AsyncConnection[TupleRow]

_statements = logging.getLogger("app.database.statements")

# A peer that has silently gone looks alive for a minute: 30 s until the first probe, then three, 10 s apart. While it
# owes an answer there are no probes, and the last option (in milliseconds) says the same.
_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


class LoggedCursor(AsyncCursor[TupleRow]):
    """A cursor that logs each statement with its time in milliseconds, and never its parameters."""

    async def execute(self, query: Any, *args: Any, **options: Any) -> Self:
        with _logged(query):
            return await super().execute(query, *args, **options)

    async def executemany(self, query: Any, *args: Any, **options: Any) -> None:
        with _logged(query):
            await super().executemany(query, *args, **options)

    @asynccontextmanager
    async def copy(self, statement: Any, *args: Any, **options: Any) -> AsyncIterator[AsyncCopy]:
        with _logged(statement):
            async with super().copy(statement, *args, **options) as copy:
                yield copy


def connection_options(settings: Settings) -> dict[str, Any]:
    """Return the arguments of `AsyncConnection.connect` for the application's database."""
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
    """Pin the settings of the session, after its start, because a PgBouncer refuses start-up options.

    The limits that the URL sets stay. Through a pooler nothing is set that would stay behind for its next client, and
    prepared statements are off unless the settings ask for them. Raises `psycopg.OperationalError` where the pooler's
    connections have settings that this code cannot work with.
    """
    set_json_dumps(_dump_json, conn)
    set_json_loads(orjson.loads, conn)
    limits = {
        "statement_timeout": _milliseconds(settings.database_statement_timeout),
        "lock_timeout": _milliseconds(settings.database_lock_timeout),
        "idle_in_transaction_session_timeout": _milliseconds(settings.database_idle_transaction_timeout),
    }
    cursor = await conn.execute(PIN_SESSION, pin_parameters(conn.info.backend_pid, optional=limits))
    (is_pooled, _) = await anext(cursor)
    if is_pooled:
        if settings.database_prepared_statements is None:
            conn.prepare_threshold = None
        await _refuse_unsuitable_pooler(conn)


async def _refuse_unsuitable_pooler(conn: AsyncConnection[Any]) -> None:
    async with conn.transaction():
        await conn.execute("SET LOCAL search_path = DEFAULT")
        found = await (await conn.execute(FIND_UNSUITABLE, pin_parameters())).fetchall()
    if found:
        raise psycopg.OperationalError(describe_unsuitable(found, conn.info.user, conn.info.dbname))


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Connection]:
    """Open one connection outside the pool, for the command line.

    Raises `psycopg.Error`, and `DatabaseUnavailable` for a database of another encoding.
    """
    async with await psycopg.AsyncConnection.connect(**connection_options(settings)) as conn:
        check_encoding(conn)
        await configure_connection(conn, settings)
        yield conn


def check_encoding(conn: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> None:
    """Raise `DatabaseUnavailable` where the database cannot hold any text. It costs no round trip."""
    encoding = conn.pgconn.parameter_status(b"server_encoding")
    if encoding not in (None, b"UTF8"):
        raise DatabaseUnavailable(
            f"The database {conn.info.dbname} has the encoding {encoding.decode()} and needs UTF8: name another one "
            "in DATABASE_URL and create it with `python -m app db create`"
        )


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _dump_json(value: Any) -> bytes:
    """Write JSON. Raises `psycopg.DataError` for NaN, infinity, half a surrogate and integers beyond 64 bits."""
    try:
        text = orjson.dumps(value)
        if b"null" in text:  # orjson's word for NaN and infinity too
            json.dumps(value, allow_nan=False, default=str)
    except (TypeError, ValueError) as error:
        raise psycopg.DataError(f"cannot be written as JSON: {error}") from None
    return text


@contextmanager
def _logged(query: Any) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        _statements.info("%s [%.1f ms]", _text(query), (time.perf_counter() - started) * 1000)


def _text(query: str | bytes | sql.Composable) -> str:
    if isinstance(query, bytes):
        query = query.decode()
    return " ".join((query if isinstance(query, str) else query.as_string(None)).split())
