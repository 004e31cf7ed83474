"""How Alembic runs: on psycopg 3, one upgrade at a time, each migration in a transaction of its own."""

import logging

from alembic import context
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from app.core.config import get_settings
from app.core.errors import DatabaseUnavailable, VideoMomentsError
from app.database.migrations import hold_migration_lock, open_migration_connection, refuse_unknown_revision


def run_offline() -> None:
    context.configure(dialect_name="postgresql", literal_binds=True, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    settings = get_settings()
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: open_migration_connection(settings), poolclass=NullPool
    )
    with hold_migration_lock(settings) as lock, engine.connect() as connection:
        refuse_unknown_revision(lock, ScriptDirectory.from_config(context.config))
        context.configure(connection=connection, transaction_per_migration=True)
        try:
            with context.begin_transaction():
                context.run_migrations()
        except OperationalError as error:  # no defect of a migration: a lock that is not free, a lost connection
            raise DatabaseUnavailable(f"The migration stopped: {str(error.orig).splitlines()[0]}") from error


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
