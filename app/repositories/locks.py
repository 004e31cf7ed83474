"""Advisory locks: of the processes that do the same periodic work, one does it at a time."""

from app.database import Connection
from app.database.queries import fetch_value


async def try_lock(conn: Connection, name: str) -> bool:
    """Take a lock that the transaction holds to its end. False where another process has it."""
    return bool(
        await fetch_value(
            conn, "SELECT pg_try_advisory_xact_lock(hashtextextended(%(name)s, 0))", {"name": f"videomoments:{name}"}
        )
    )
