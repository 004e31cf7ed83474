"""The one connection pool, its connections, and the dependencies that hand them to endpoints."""

from app.database.batches import Batches, OpenReader
from app.database.connection import Connection, connect
from app.database.dependencies import get_db, get_reader
from app.database.pool import close_db, get_pool, init_db

__all__ = ["Batches", "Connection", "OpenReader", "close_db", "connect", "get_db", "get_pool", "get_reader", "init_db"]
