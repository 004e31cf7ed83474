"""Embedded PostgreSQL and Valkey servers, for `make run` and the tests."""

from app.embedded.data_folder import EmbeddedError
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedValkey"]
