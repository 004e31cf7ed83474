"""`python -m app db backup` and `db restore`."""

import argparse
from pathlib import Path

from app.core.config import Settings
from app.core.console import open_console
from app.database.migrations import code_revisions, read_database_revision
from app.services.backups import create_backup, restore_backup

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
