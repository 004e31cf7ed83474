"""One statement and its rows as objects: each row's columns become the arguments of a dataclass, in their order."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, LiteralString, TypeVar

from psycopg import sql
from psycopg.abc import QueryNoTemplate
from psycopg.rows import args_row

from app.database.connection import Connection

Row = TypeVar("Row")


async def fetch_one(
    conn: Connection, row_class: Callable[..., Row], statement: QueryNoTemplate, params: Mapping[str, Any] | None = None
) -> Row | None:
    cursor = conn.cursor(row_factory=args_row(row_class))
    await cursor.execute(statement, params)
    return await cursor.fetchone()


async def fetch_returned_row(
    conn: Connection, row_class: Callable[..., Row], statement: QueryNoTemplate, params: Mapping[str, Any] | None = None
) -> Row:
    """Return the row of a statement that always returns one, such as INSERT … RETURNING."""
    cursor = conn.cursor(row_factory=args_row(row_class))
    await cursor.execute(statement, params)
    return await anext(cursor)


async def fetch_all(
    conn: Connection, row_class: Callable[..., Row], statement: QueryNoTemplate, params: Mapping[str, Any] | None = None
) -> list[Row]:
    cursor = conn.cursor(row_factory=args_row(row_class))
    await cursor.execute(statement, params)
    return await cursor.fetchall()


async def fetch_value(
    conn: Connection, statement: QueryNoTemplate, params: Mapping[str, Any] | None = None, *, binary: bool = False
) -> Any | None:
    cursor = await conn.execute(statement, params, binary=binary)
    row = await cursor.fetchone()
    return row[0] if row else None


async def exists(conn: Connection, statement: QueryNoTemplate, params: Mapping[str, Any] | None = None) -> bool:
    """Return whether a query finds a row."""
    cursor = await conn.execute(statement, params)
    return await cursor.fetchone() is not None


LARGEST_ID = 2**31 - 1  # of a serial column


def make_set_clause(changes: Mapping[str, Any]) -> sql.Composed:
    """Return `column = %(column)s, …` for the keys of `changes`."""
    return sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in changes
    )


def make_and_conditions(conditions: Mapping[LiteralString, object]) -> sql.Composed:
    """Return ` AND condition` for each condition whose value is not None.

    Each set of filters gets its own statement: with `value IS NULL OR …` a plan kept for all values could use no index.
    """
    return sql.SQL("").join(
        sql.SQL(" AND " + condition) for condition, value in conditions.items() if value is not None
    )


async def copy_rows(
    conn: Connection, table: LiteralString, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> int:
    """COPY `rows` into `table` and return their number; a key that a row lacks is written as NULL."""
    count = 0
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    async with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            await copy.write_row([row.get(column) for column in columns])
            count += 1
    return count


async def try_transaction_lock(conn: Connection, name: str) -> bool:
    """Take an advisory lock until the transaction ends; False where another process has it."""
    return bool(
        await fetch_value(
            conn, "SELECT pg_try_advisory_xact_lock(hashtextextended(%(name)s, 0))", {"name": f"videomoments:{name}"}
        )
    )
