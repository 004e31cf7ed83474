"""Migrations from Python: upgrade, the revisions of a database and of the code, and one upgrade at a time."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import Connection as SyncConnection
from psycopg import sql
from psycopg.conninfo import make_conninfo

from app.core.config import Settings
from app.core.errors import DatabaseAhead, DatabaseUnavailable
from app.database.connection import Connection
from app.database.errors import connection_error

_INI = Path(__file__).resolve().parents[2] / "alembic.ini"

# "videomom" as a number: any value that other users of the same database do not take.
_LOCK_KEY = int.from_bytes(b"videomom")
_LOCK_WAIT_SECONDS = 600.0
_LOCK_POLL_SECONDS = 0.2

_DEFAULTS = {"connect_timeout": "5", "application_name": "videomoments-migrations"}


def upgrade() -> None:
    """Migrate the database of the process's settings to this code's head."""
    command.upgrade(Config(_INI), "head")


@cache
def code_revisions() -> tuple[str, ...]:
    """Return this code's revisions, the head first."""
    scripts = ScriptDirectory.from_config(Config(_INI))
    return tuple(script.revision for script in scripts.walk_revisions())


async def read_revision(conn: Connection) -> str | None:
    """Return the revision a database is at, or None where it was never migrated."""
    cursor = await conn.execute("SELECT to_regclass('alembic_version')")
    if (await cursor.fetchone()) == (None,):
        return None
    row = await (await conn.execute("SELECT version_num FROM alembic_version")).fetchone()
    return str(row[0]) if row else None


def read_database_revision(settings: Settings) -> str | None:
    """Return the revision of the settings' database, or None where it was never migrated."""
    with open_connection(settings.migration_parameters, autocommit=True) as conn:
        return _read_revision(conn)


def open_connection(parameters: Mapping[str, str], autocommit: bool = False) -> SyncConnection[Any]:
    """Open a blocking connection. Raises `DatabaseUnavailable`: one sentence."""
    try:
        return _connect(parameters, autocommit)
    except psycopg.OperationalError as error:
        raise connection_error(error, parameters) from None


def create_database(settings: Settings) -> bool:
    """Create the database of the settings; False where it exists already. Raises `DatabaseUnavailable`.

    Where it exists the user needs a right to connect to it and no other: not to `postgres`, not to create databases.
    """
    parameters = settings.migration_parameters
    if _is_there(parameters):
        return False
    with open_connection(parameters | {"dbname": "postgres"}, autocommit=True) as conn:
        return _create(conn, parameters["dbname"])


def open_migration_connection(settings: Settings) -> SyncConnection[Any]:
    """Open Alembic's connection: no statement limit, and a lock is not waited for longer than the setting says."""
    conn = open_connection(settings.migration_parameters)
    conn.execute(
        "SELECT set_config('statement_timeout', '0', false), set_config('lock_timeout', %s, false)",
        (f"{round(settings.database_lock_timeout * 1000)}",),
    )
    conn.commit()
    return conn


@contextmanager
def hold_migration_lock(settings: Settings) -> Iterator[SyncConnection[Any]]:
    """Wait until no other upgrade runs, and keep others waiting inside the block.

    The lock lives on a connection of its own and is polled for: a blocking wait would be a transaction that CREATE
    INDEX CONCURRENTLY waits for in turn, and Alembic's own connection could not run outside a transaction.
    """
    with open_connection(settings.migration_parameters, autocommit=True) as conn:
        deadline = time.monotonic() + _LOCK_WAIT_SECONDS
        while not _try_lock(conn):
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(f"Another upgrade has held the lock for {_LOCK_WAIT_SECONDS:.0f} seconds")
            time.sleep(_LOCK_POLL_SECONDS)
        yield conn


def refuse_unknown_revision(conn: SyncConnection[Any], scripts: ScriptDirectory) -> None:
    """Raise `DatabaseAhead` where the database has a revision that these scripts do not know."""
    revision = _read_revision(conn)
    if revision not in (None, *(script.revision for script in scripts.walk_revisions())):
        raise DatabaseAhead(
            f"The database is at revision {revision}, which this version of the code does not know: run a newer one"
        )


def _connect(parameters: Mapping[str, str], autocommit: bool = False) -> SyncConnection[Any]:
    return psycopg.connect(make_conninfo(**{**_DEFAULTS, **parameters}), autocommit=autocommit)


def _is_there(parameters: Mapping[str, str]) -> bool:
    try:
        _connect(parameters).close()
    except psycopg.OperationalError as error:  # libpq gives a connection that failed no SQLSTATE, only this text
        if f'database "{parameters["dbname"]}" does not exist' in str(error):
            return False
        raise connection_error(error, parameters) from None
    return True


def _create(conn: SyncConnection[Any], name: str) -> bool:
    statement = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0")
    try:
        conn.execute(statement.format(sql.Identifier(name)))
    except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):  # another made it at the same time
        return False
    except psycopg.errors.InsufficientPrivilege:
        raise DatabaseUnavailable(f"{conn.info.user} may not create databases: ask for {name}") from None
    return True


def _read_revision(conn: SyncConnection[Any]) -> str | None:
    try:
        row = conn.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    return str(row[0]) if row else None


def _try_lock(conn: SyncConnection[Any]) -> bool:
    row = conn.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone()
    return bool(row and row[0])
