"""`python -m app db backup`, `db restore` and `db psql`."""

import argparse
import shutil
import signal
import subprocess
from pathlib import Path

from app.core.config import Settings
from app.core.console import open_console
from app.core.errors import DatabaseUnavailable
from app.database.migrations import code_revisions, read_database_revision
from app.embedded.binaries import find_client
from app.services.backups import client_environment, conninfo_without_password, create_backup, restore_backup

_console = open_console()


def run_backup(options: argparse.Namespace, settings: Settings) -> int:
    target: Path = options.file
    create_backup(settings, target)
    size = target.stat().st_size / 1024
    _console.print(f"The database is in {target} ({size:,.0f} KB)", markup=False)
    _console.print(f"Not in it: {_name_media(settings)}, and the models in Redis", markup=False)
    return 0


def run_restore(options: argparse.Namespace, settings: Settings) -> int:
    restore_backup(settings, options.file)
    revision, head = read_database_revision(settings), code_revisions()[0]
    advice = "" if revision == head else ", run `python -m app db upgrade` next"
    _console.print(f"The database is restored, at revision {revision}{advice}", markup=False)
    _console.print(f"Not in the backup: {_name_media(settings)}, and the models in Redis", markup=False)
    return 0


def _name_media(settings: Settings) -> str:
    place = settings.storage_url or str(settings.data_dir.absolute() / "media")
    return f"the media in {place}"


def run_psql(options: argparse.Namespace, settings: Settings) -> int:
    """Run psql to its end and return its exit status. Ctrl-C cancels what it runs, and leaves it open."""
    program = find_client("psql") or shutil.which("psql")
    if program is None:
        raise DatabaseUnavailable("There is no psql: install the package postgresql-client, or requirements-local.txt")
    parameters = settings.migration_parameters
    command = [str(program), f"--dbname={conninfo_without_password(parameters)}", *options.arguments]
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        return subprocess.run(command, env=client_environment(parameters)).returncode  # noqa: S603  the user's own
    finally:
        signal.signal(signal.SIGINT, before)
