"""The one connection pool, its connections, and the dependencies that hand them to endpoints."""

from app.database.batches import Batches, OpenConnection
from app.database.checkout import Database
from app.database.connection import Connection, connect
from app.database.dependencies import get_connection, get_db
from app.database.pool import close_db, get_pool, init_db

__all__ = [
    "Batches",
    "Connection",
    "Database",
    "OpenConnection",
    "close_db",
    "connect",
    "get_connection",
    "get_db",
    "get_pool",
    "init_db",
]
