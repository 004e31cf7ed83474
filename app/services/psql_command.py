"""`python -m app db psql`: PostgreSQL's own client on the database of the settings."""

import argparse
import shutil
import signal
import subprocess

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable
from app.embedded.binaries import find_client
from app.services.backups import client_environment, conninfo_without_password


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
