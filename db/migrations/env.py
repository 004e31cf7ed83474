"""How Alembic runs: on psycopg 3, one upgrade at a time, each migration in a transaction of its own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from alembic import context
from alembic.ddl.postgresql import PostgresqlImpl
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from app.core.config import get_settings
from app.core.errors import DatabaseUnavailable, VideoMomentsError
from app.database.migrations import (
    hold_migration_lock,
    open_migration_connection,
    pin_migration_transaction,
    refuse_unknown_revision,
)

_PINNED_IN_SCRIPTS = ("search_path = public", "standard_conforming_strings = on", "statement_timeout = 0")


class PinnedPostgres(PostgresqlImpl):
    """Alembic's PostgreSQL, whose printed scripts pin the settings of each transaction as `run_online` does."""

    __dialect__ = "postgresql"

    def emit_begin(self) -> None:
        super().emit_begin()
        for setting in _PINNED_IN_SCRIPTS:
            self.static_output(f"SET LOCAL {setting}{self.command_terminator}")


def run_offline() -> None:
    context.configure(
        dialect_name="postgresql", literal_binds=True, transaction_per_migration=True, version_table_schema="public"
    )
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    settings = get_settings()
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: open_migration_connection(settings), poolclass=NullPool
    )
    event.listen(engine, "begin", lambda begun: pin_migration_transaction(_driver_connection(begun), settings))
    with _plain_words(), hold_migration_lock(settings), engine.connect() as connection:
        refuse_unknown_revision(_driver_connection(connection), ScriptDirectory.from_config(context.config))
        context.configure(connection=connection, transaction_per_migration=True, version_table_schema="public")
        with context.begin_transaction():
            context.run_migrations()


def _driver_connection(connection: Connection) -> Any:
    return connection.connection.driver_connection


_REFUSALS = (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)


@contextmanager
def _plain_words() -> Iterator[None]:
    """Turn what is no defect of a migration into one sentence: a lock that is not free, a lost connection, a right."""
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(cause, _REFUSALS):
            raise
        user = f" (as user {_user()})" if isinstance(cause, psycopg.errors.InsufficientPrivilege) else ""
        raise DatabaseUnavailable(f"The migration stopped: {str(cause).splitlines()[0]}{user}") from error


def _user() -> str:
    return get_settings().migration_parameters.get("user", "of the system")


def run() -> None:
    if context.config.cmd_opts is not None:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("alembic.runtime.migration").setLevel(logging.INFO)
    try:
        run_offline() if context.is_offline_mode() else run_online()
    except VideoMomentsError as error:
        if context.config.cmd_opts is None:  # called from Python, which handles the error itself
            raise
        raise SystemExit(str(error)) from None


run()
