"""Migrations from Python: upgrade one at a time, read revisions, create and empty a database."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import Connection as SyncConnection
from psycopg import IsolationLevel, sql
from psycopg.conninfo import make_conninfo
from tenacity import stop_after_delay, wait_fixed

from app.core.config import Settings
from app.core.errors import Conflict, DatabaseAhead, DatabaseUnavailable
from app.core.retrying import RetryPolicy, call_blocking_with_retries
from app.database.connection import (
    PIN_SESSION,
    PIN_TRANSACTION,
    Connection,
    make_pinned_setting_parameters,
    require_utf8_encoding,
)
from app.database.errors import make_connection_error

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

_log = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[2]

# "videomom" as a number: a key that other users of the database do not use.
_LOCK_KEY = int.from_bytes(b"videomom")
_LOCK_WAIT_SECONDS = 600.0
_LOCK_POLL_SECONDS = 0.2
# How long an upgrade behind a pooler waits for a second connection, besides that of the lock.
_SECOND_CONNECTION_SECONDS = 30.0
# PgBouncer does not retry for 15 s after a failed login.
_POOLER_POLICY = RetryPolicy(psycopg.OperationalError, wait_fixed(0.2), stop_after_delay(20.0))

_DEFAULTS = {"connect_timeout": "5", "application_name": "videomoments-migrations"}
_NO_LIMITS = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0", "transaction_timeout": "0"}


def upgrade_to_head() -> None:
    from alembic import command  # with SQLAlchemy a third of a second of imports, which only a migration needs

    command.upgrade(_make_alembic_config(), "head")


def downgrade_to_base() -> None:
    from alembic import command

    command.downgrade(_make_alembic_config(), "base")


def _make_alembic_config() -> "Config":
    from alembic.config import Config

    return Config(_ROOT / "alembic.ini")


@cache
def list_migration_revisions() -> tuple[str, ...]:
    files = (_ROOT / "db" / "migrations" / "versions").glob("*.py")
    return tuple(sorted((file.name.partition("_")[0] for file in files), reverse=True))


async def read_alembic_revision(conn: Connection) -> str | None:
    cursor = await conn.execute("SELECT to_regclass('public.alembic_version')")
    if (await cursor.fetchone()) == (None,):
        return None
    row = await (await conn.execute("SELECT version_num FROM public.alembic_version")).fetchone()
    return str(row[0]) if row else None


def read_database_revision(settings: Settings) -> str | None:
    with open_blocking_connection(settings.migration_parameters, autocommit=True) as conn:
        return _read_stored_revision(conn)


def open_blocking_connection(
    parameters: Mapping[str, str],
    timeouts: Mapping[str, str] = _NO_LIMITS,
    *,
    autocommit: bool = False,
    answer_seconds: float | None = None,
    any_encoding: bool = False,
) -> SyncConnection[Any]:
    """Open a blocking connection with pinned settings and `timeouts`. Raises `DatabaseUnavailable`."""
    with ExitStack() as unless_pinned:
        try:
            conn = unless_pinned.enter_context(closing(_open_sync_connection(parameters, autocommit)))
            if not any_encoding:
                require_utf8_encoding(conn)
            with _limit_answer_time(conn, answer_seconds):
                conn.execute(PIN_SESSION, make_pinned_setting_parameters(conn.info.backend_pid, forced=timeouts))
                if not autocommit:
                    conn.commit()
        except psycopg.OperationalError as error:
            raise make_connection_error(error, parameters) from None
        unless_pinned.pop_all()
    return conn


def is_behind_pooler(conn: SyncConnection[Any]) -> bool:
    # A pooler reports a process id of its own.
    return conn.execute("SELECT pg_backend_pid()").fetchone() != (conn.info.backend_pid,)


def create_database(settings: Settings) -> bool:
    """Create the missing database; False where it exists. Raises `DatabaseUnavailable`.

    For an existing one the user needs only the privilege to connect to it, neither to `postgres` nor CREATEDB.
    """
    parameters = settings.migration_parameters
    failure = _find_connection_error(parameters)
    if failure is None:
        return False
    with _connect_to_postgres_database(parameters, failure) as conn:
        found = conn.execute("SELECT FROM pg_database WHERE datname = %s", [parameters["dbname"]]).fetchone()
        if found is not None and not is_behind_pooler(conn) and (failure := _find_connection_error(parameters)):
            raise make_connection_error(failure, parameters)  # otherwise another command has just created it
        is_new = found is None and _create_empty_database(conn, parameters["dbname"])
    _wait_for_pooler(parameters)
    return is_new


def open_migration_connection(settings: Settings) -> SyncConnection[Any]:
    """Open Alembic's connection. Raises `DatabaseUnavailable`, also where the schema `public` is missing."""
    conn = open_blocking_connection(
        settings.migration_parameters, _make_migration_timeouts(settings), answer_seconds=_SECOND_CONNECTION_SECONDS
    )
    conn.isolation_level = IsolationLevel.READ_COMMITTED
    has_public = conn.execute("SELECT to_regnamespace('public') IS NOT NULL").fetchone() == (True,)
    conn.rollback()
    if not has_public:
        conn.close()
        raise DatabaseUnavailable("The database has no schema public, which the tables belong to: create it")
    return conn


def pin_migration_transaction(conn: SyncConnection[Any], settings: Settings) -> None:
    """Pin the settings of the current transaction, with no time limit but the lock timeout.

    Settings of the session would be lost: a pooler may run each transaction on another server connection.
    """
    conn.execute(PIN_TRANSACTION, make_pinned_setting_parameters(forced=_make_migration_timeouts(settings)))


@contextmanager
def hold_migration_lock(settings: Settings) -> Iterator[None]:
    """Hold an advisory lock in the block, so that one upgrade runs at a time.

    It is that of a transaction, which a pooler keeps on one server connection. CREATE INDEX CONCURRENTLY cannot run in
    one, hence the second connection, and would wait for the snapshot of a waiting statement, hence the polling.
    """
    with open_blocking_connection(settings.migration_parameters) as conn:
        conn.isolation_level = IsolationLevel.READ_COMMITTED  # without a snapshot between two statements
        deadline = time.monotonic() + _LOCK_WAIT_SECONDS
        is_logged = False
        while not _try_migration_lock(conn, settings):
            conn.rollback()
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(f"Another upgrade has held the lock for {_LOCK_WAIT_SECONDS:.0f} seconds")
            if not is_logged:
                _log.warning("Waiting for another upgrade of this database to end")
                is_logged = True
            time.sleep(_LOCK_POLL_SECONDS)
        yield


def refuse_unknown_revision(conn: SyncConnection[Any], scripts: "ScriptDirectory") -> None:
    revision = _read_stored_revision(conn)
    conn.rollback()  # a migration may need an exclusive lock on the table of revisions
    if revision not in (None, *(script.revision for script in scripts.walk_revisions())):
        raise DatabaseAhead(
            f"The database is at revision {revision}, which this version of the code does not know: run a newer one"
        )


def _make_migration_timeouts(settings: Settings) -> dict[str, str]:
    return {**_NO_LIMITS, "lock_timeout": f"{round(settings.database_lock_timeout * 1000)}"}


def _open_sync_connection(parameters: Mapping[str, str], autocommit: bool = False) -> SyncConnection[Any]:
    conninfo = make_conninfo(**{**_DEFAULTS, **parameters, "client_encoding": "UTF8"})
    return psycopg.connect(conninfo, autocommit=autocommit, prepare_threshold=None)


@contextmanager
def _limit_answer_time(conn: SyncConnection[Any], seconds: float | None) -> Iterator[None]:
    """Close the socket, and raise `DatabaseUnavailable`, where the block takes longer; None is no limit."""
    with socket.socket(fileno=os.dup(conn.fileno())) as line:
        is_late = threading.Event()

        def close_socket() -> None:
            is_late.set()
            line.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds or 0, close_socket)
        if seconds is not None:
            timer.start()
        try:
            yield
        except psycopg.OperationalError:
            if is_late.is_set():
                raise DatabaseUnavailable(
                    f"The pooler gave the upgrade no second connection within {seconds:.0f} seconds: raise its "
                    "pool_size, or set DATABASE_SYNC_URL to the address of PostgreSQL itself"
                ) from None
            raise
        finally:
            timer.cancel()


def _find_connection_error(parameters: Mapping[str, str]) -> psycopg.OperationalError | None:
    try:
        _open_sync_connection(parameters).close()
    except psycopg.OperationalError as error:
        return error
    return None


def _connect_to_postgres_database(
    parameters: Mapping[str, str], failure: psycopg.OperationalError
) -> SyncConnection[Any]:
    """Open a connection to the database `postgres`, or raise the more specific of both errors."""
    try:
        return open_blocking_connection({**parameters, "dbname": "postgres"}, autocommit=True, any_encoding=True)
    except DatabaseUnavailable:
        if f'database "{parameters["dbname"]}" does not exist' in str(failure):
            raise
        raise make_connection_error(failure, parameters) from None


def _wait_for_pooler(parameters: Mapping[str, str]) -> None:
    with suppress(psycopg.OperationalError):
        return call_blocking_with_retries(lambda: _open_sync_connection(parameters).close(), _POOLER_POLICY)
    return open_blocking_connection(parameters).close()


def _create_empty_database(conn: SyncConnection[Any], name: str) -> bool:
    statement = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0")
    try:
        conn.execute(statement.format(sql.Identifier(name)))
    except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):  # created concurrently
        return False
    except psycopg.errors.InsufficientPrivilege:
        raise DatabaseUnavailable(f"{conn.info.user} may not create databases: ask for {name}") from None
    return True


def _read_stored_revision(conn: SyncConnection[Any]) -> str | None:
    if conn.execute("SELECT to_regclass('public.alembic_version')").fetchone() == (None,):
        return None
    row = conn.execute("SELECT version_num FROM public.alembic_version").fetchone()
    return str(row[0]) if row else None


def _try_migration_lock(conn: SyncConnection[Any], settings: Settings) -> bool:
    pin_migration_transaction(conn, settings)
    # Without parameters it is a simple query: the portal of an extended query keeps its snapshot.
    statement = sql.SQL("SELECT pg_try_advisory_xact_lock({})").format(_LOCK_KEY)
    row = conn.execute(statement).fetchone()
    return bool(row and row[0])


_OBJECTS_QUERY = """
    SELECT oid::regclass::text,
           relkind IN ('r', 'p') AND oid IS DISTINCT FROM to_regclass('public.alembic_version')
           AND oid IS DISTINCT FROM to_regclass('library.video_list_changes')
    FROM pg_class
    WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
      AND relnamespace::regnamespace::text !~ '^pg_' AND relnamespace <> 'information_schema'::regnamespace
      AND oid NOT IN (SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e')
    ORDER BY 1
"""

_DISCONNECT_SECONDS = 5.0  # for a closed connection whose server process ends a little later
_CLIENT_POLL_SECONDS = 0.05

# Without further privileges only these columns of other sessions are visible; autovacuum has no user.
_CLIENTS_QUERY = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usesysid IS NOT NULL AND pid <> pg_backend_pid()
"""


def drop_schema_without_rows(conn: SyncConnection[Any]) -> None:
    """Drop the schema of a database without rows, to restore a backup into. Raises `Conflict` with rows or clients."""
    objects = conn.execute(_OBJECTS_QUERY).fetchall()
    full = next((name for name, has_rows in objects if has_rows and _table_has_rows(conn, name)), None)
    if full:
        raise Conflict(f"The database {conn.info.dbname} is not empty: {full} has rows; restore into a new database")
    if conn.execute("SELECT to_regclass('public.alembic_version')").fetchone() != (None,):
        _require_no_other_connections(conn)
        downgrade_to_base()
        conn.execute("DROP TABLE public.alembic_version")
        objects = conn.execute(_OBJECTS_QUERY).fetchall()
    if objects:
        raise Conflict(
            f"The database {conn.info.dbname} is not empty: it has {objects[0][0]}; restore into a new database"
        )


def _require_no_other_connections(conn: SyncConnection[Any]) -> None:
    deadline = time.monotonic() + _DISCONNECT_SECONDS
    while (count := _count_other_connections(conn)) and time.monotonic() < deadline:
        time.sleep(_CLIENT_POLL_SECONDS)
    if count:
        raise Conflict(
            f"The database {conn.info.dbname} is in use by {count} other connection{'s' if count > 1 else ''}: "
            "stop the servers and workers first"
        )


def _count_other_connections(conn: SyncConnection[Any]) -> int:
    (count,) = conn.execute(_CLIENTS_QUERY).fetchone() or (0,)
    return int(count)


def _table_has_rows(conn: SyncConnection[Any], table: str) -> bool:
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.SQL(table))
    return conn.execute(statement).fetchone() == (True,)
