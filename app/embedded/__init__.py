"""A PostgreSQL and a Redis-protocol server of one's own, for `make run` and for the tests."""

from app.embedded.data_folder import EmbeddedError
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedValkey"]
