"""Advisory locks: of the processes that do the same periodic work, one does it at a time."""

from app.database import Connection


async def try_lock(conn: Connection, name: str) -> bool:
    """Take a lock that the transaction holds to its end. False where another process has it."""
    cursor = await conn.execute(
        "SELECT pg_try_advisory_xact_lock(hashtextextended(%(name)s, 0))", {"name": f"videomoments:{name}"}
    )
    row = await cursor.fetchone()
    return bool(row and row[0])
