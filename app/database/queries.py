"""One statement and its rows as objects: each row's columns become the arguments of a dataclass, in their order."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from psycopg.abc import QueryNoTemplate
from psycopg.rows import args_row

from app.database.connection import Connection

Row = TypeVar("Row")


async def fetch_one(
    conn: Connection, row: Callable[..., Row], sql: QueryNoTemplate, params: Mapping[str, Any] | None = None
) -> Row | None:
    """Return the first row, or None where there is none."""
    cursor = conn.cursor(row_factory=args_row(row))
    await cursor.execute(sql, params)
    return await cursor.fetchone()


async def fetch_returned(
    conn: Connection, row: Callable[..., Row], sql: QueryNoTemplate, params: Mapping[str, Any] | None = None
) -> Row:
    """Return the row of a statement that always returns one, such as `INSERT … RETURNING`."""
    cursor = conn.cursor(row_factory=args_row(row))
    await cursor.execute(sql, params)
    return await anext(cursor)


async def fetch_all(
    conn: Connection, row: Callable[..., Row], sql: QueryNoTemplate, params: Mapping[str, Any] | None = None
) -> list[Row]:
    cursor = conn.cursor(row_factory=args_row(row))
    await cursor.execute(sql, params)
    return await cursor.fetchall()


async def fetch_value(
    conn: Connection, sql: QueryNoTemplate, params: Mapping[str, Any] | None = None, *, binary: bool = False
) -> Any | None:
    """Return the first column of the first row, or None where there is no row."""
    cursor = await conn.execute(sql, params, binary=binary)
    row = await cursor.fetchone()
    return row[0] if row else None


async def exists(conn: Connection, sql: QueryNoTemplate, params: Mapping[str, Any] | None = None) -> bool:
    """Return whether the statement returns a row."""
    cursor = await conn.execute(sql, params)
    return await cursor.fetchone() is not None
