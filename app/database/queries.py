"""One statement and its rows as objects: each row's columns become the arguments of a dataclass, in their order."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, LiteralString, TypeVar

from psycopg import sql
from psycopg.abc import QueryNoTemplate
from psycopg.rows import args_row

from app.database.connection import Connection

Row = TypeVar("Row")


class Repository:
    """The statements of one subject over a connection, whose transactions the caller begins."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn


async def fetch_one(
    conn: Connection, row_class: Callable[..., Row], statement: QueryNoTemplate, params: Mapping[str, Any] | None = None
) -> Row | None:
    cursor = conn.cursor(row_factory=args_row(row_class))
    await cursor.execute(statement, params)
    return await cursor.fetchone()


async def fetch_returned_row(
    conn: Connection, row_class: Callable[..., Row], statement: QueryNoTemplate, params: Mapping[str, Any] | None = None
) -> Row:
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
    cursor = await conn.execute(statement, params)
    return await cursor.fetchone() is not None


async def lift_statement_timeout(conn: Connection) -> None:
    """Let the statements of the transaction take any time."""
    await conn.execute("SELECT set_config('statement_timeout', '0', true)")


LARGEST_ID = 2**31 - 1  # of a serial column


def list_columns(row_class: type, prefix: LiteralString = "") -> LiteralString:
    """Return the columns of a table as `id, title, …`: the fields of its row class, each after the prefix."""
    names: list[Any] = [field.name for field in fields(row_class)]
    return ", ".join(prefix + name for name in names)


def make_insert(table: LiteralString, values: Mapping[str, Any], ending: LiteralString = "") -> sql.Composed:
    """Return an INSERT of the parameters with the names of `values`, which are columns; others get their defaults."""
    columns, placeholders = map(sql.Identifier, values), map(sql.Placeholder, values)
    comma = sql.SQL(", ")
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table), comma.join(columns), comma.join(placeholders)
    )
    return statement + sql.SQL(ending)


async def insert_row(conn: Connection, row_class: type[Row], table: LiteralString, values: Mapping[str, Any]) -> Row:
    ending: LiteralString = " RETURNING " + list_columns(row_class)
    return await fetch_returned_row(conn, row_class, make_insert(table, values, ending), values)


async def update_row(
    conn: Connection, row_class: type[Row], table: LiteralString, row_id: int, changes: Mapping[str, Any]
) -> Row | None:
    assignments = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in changes]
    statement = (
        "UPDATE {} SET {} WHERE id = %(id)s RETURNING {}" if changes else "SELECT {2} FROM {0} WHERE id = %(id)s"
    )
    parts = sql.Identifier(table), sql.SQL(", ").join(assignments), sql.SQL(list_columns(row_class))
    return await fetch_one(conn, row_class, sql.SQL(statement).format(*parts), {**changes, "id": row_id})


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


async def lock_in_transaction(conn: Connection, name: str) -> None:
    """Wait for an advisory lock and hold it until the transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, 0))", {"name": name})


async def try_lock_in_transaction(conn: Connection, name: str) -> bool:
    return bool(
        await fetch_value(
            conn, "SELECT pg_try_advisory_xact_lock(hashtextextended(%(name)s, 0))", {"name": f"videomoments:{name}"}
        )
    )
