"""A database without rows is emptied, so that a backup can be restored into it."""

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


def empty_database(conn: Connection[Any]) -> None:
    """Take the schema of a migrated database without rows away. Raises `Conflict` where there is anything else."""
    objects = conn.execute(_OBJECTS).fetchall()
    full = next((name for name, has_rows in objects if has_rows and _has_rows(conn, name)), None)
    if full:
        raise Conflict(f"The database {conn.info.dbname} is not empty: {full} has rows; restore into a new database")
    if conn.execute("SELECT to_regclass('public.alembic_version')").fetchone() != (None,):
        downgrade_to_base()
        conn.execute("DROP TABLE public.alembic_version")
        objects = conn.execute(_OBJECTS).fetchall()
    if objects:
        raise Conflict(
            f"The database {conn.info.dbname} is not empty: it has {objects[0][0]}; restore into a new database"
        )


def _has_rows(conn: Connection[Any], table: str) -> bool:
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.SQL(table))
    return conn.execute(statement).fetchone() == (True,)
