"""PostgreSQL: the one pool, its connections, queries over them, and migrations from Python."""

from app.database.checkout import BatchLoader, Database, OpenConnection, get_connection, get_db
from app.database.connection import Connection, open_async_connection
from app.database.pool import close_db, get_pool, init_db

__all__ = [
    "BatchLoader",
    "Connection",
    "Database",
    "OpenConnection",
    "close_db",
    "get_connection",
    "get_db",
    "get_pool",
    "init_db",
    "open_async_connection",
]
