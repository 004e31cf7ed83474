"""The parts of statements that depend on what the caller gives: SET, COPY and optional filters."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, LiteralString

from psycopg import sql

from app.database import Connection

LARGEST_ID = 2**31 - 1  # of a serial column


def set_clause(changes: Mapping[str, Any]) -> sql.Composed:
    """Return `column = %(column)s, …` for an UPDATE. The names are the keys of a TypedDict, quoted all the same."""
    return sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in changes
    )


def and_where(conditions: Mapping[LiteralString, object]) -> sql.Composed:
    """Return ` AND condition` for each condition whose value is not None.

    A statement for each set of filters: with `value IS NULL OR …` a plan kept for all values could use no index.
    """
    return sql.SQL("").join(
        sql.SQL(" AND " + condition) for condition, value in conditions.items() if value is not None
    )


async def copy_rows(
    conn: Connection, table: LiteralString, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> int:
    """COPY `rows` into `table` and return how many there were. A key that a row lacks is written as NULL."""
    count = 0
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    async with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            await copy.write_row([row.get(column) for column in columns])
            count += 1
    return count
