"""A database without rows is emptied, so that a backup can be restored into it."""

import time
from typing import Any

from psycopg import Connection, sql

from app.core.errors import Conflict
from app.database.migrations import downgrade_to_base

_OBJECTS = """
    SELECT oid::regclass::text, relkind IN ('r', 'p') AND oid IS DISTINCT FROM to_regclass('public.alembic_version')
    FROM pg_class
    WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
      AND relnamespace::regnamespace::text !~ '^pg_' AND relnamespace <> 'information_schema'::regnamespace
      AND oid NOT IN (SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e')
    ORDER BY 1
"""

_LEAVE_SECONDS = 5.0  # for a connection that was closed, whose process ends a little later
_POLL_SECONDS = 0.05

# A user without further rights sees of others' sessions these columns alone; autovacuum has no user.
_CLIENTS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usesysid IS NOT NULL AND pid <> pg_backend_pid()
"""


def empty_database(conn: Connection[Any]) -> None:
    """Take the schema of a migrated database without rows away.

    Raises `Conflict` where there is anything else, and where a client is connected, who might add rows meanwhile.
    """
    objects = conn.execute(_OBJECTS).fetchall()
    full = next((name for name, has_rows in objects if has_rows and _has_rows(conn, name)), None)
    if full:
        raise Conflict(f"The database {conn.info.dbname} is not empty: {full} has rows; restore into a new database")
    if conn.execute("SELECT to_regclass('public.alembic_version')").fetchone() != (None,):
        _refuse_clients(conn)
        downgrade_to_base()
        conn.execute("DROP TABLE public.alembic_version")
        objects = conn.execute(_OBJECTS).fetchall()
    if objects:
        raise Conflict(
            f"The database {conn.info.dbname} is not empty: it has {objects[0][0]}; restore into a new database"
        )


def _refuse_clients(conn: Connection[Any]) -> None:
    deadline = time.monotonic() + _LEAVE_SECONDS
    while (count := _count_clients(conn)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    if count:
        raise Conflict(
            f"The database {conn.info.dbname} is in use by {count} other connection{'s' if count > 1 else ''}: "
            "stop the servers and workers first"
        )


def _count_clients(conn: Connection[Any]) -> int:
    (count,) = conn.execute(_CLIENTS).fetchone() or (0,)
    return int(count)


def _has_rows(conn: Connection[Any], table: str) -> bool:
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.SQL(table))
    return conn.execute(statement).fetchone() == (True,)
