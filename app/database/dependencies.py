"""What an endpoint asks for: a connection inside a transaction, or one where each statement is its own."""

from collections.abc import AsyncGenerator

from app.database.connection import Connection
from app.database.pool import get_pool


async def get_db() -> AsyncGenerator[Connection]:
    """Give a connection in a transaction: committed when the endpoint returns, rolled back when it raises.

    Depend on it with `scope="function"`, so that the commit happens before the answer is sent.
    """
    async with get_pool().connection() as conn, conn.transaction():
        yield conn


async def get_connection() -> AsyncGenerator[Connection]:
    """Give a connection in autocommit: a statement is a transaction of its own, and one round trip."""
    pool = get_pool()
    conn = await pool.getconn()
    try:
        yield conn
    finally:
        await pool.putconn(conn)
