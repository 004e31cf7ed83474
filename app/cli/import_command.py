"""`python -m app import DIR`: the import of a library of the previous backend."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.servers import open_migrated_servers


def _library(text: str) -> Path:
    from app.importer.legacy_files import NotALibrary, find_library_root

    try:
        return find_library_root(Path(text))
    except NotALibrary as error:
        raise typer.BadParameter(str(error)) from None


def _report_file(text: str) -> Path:
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.absolute().parent}")
    return path


def import_directory(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", parser=_library, help="the static/ folder, or the folder it is in")
    ],
    copy: Annotated[bool, typer.Option("--copy", help="bring the files of DIR into STORAGE_URL, too")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="write nothing, and say what would be written")] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=_report_file, help="write the whole report to FILE, as JSON"),
    ] = None,
    bucket: Annotated[
        str | None, typer.Option(help="the bucket of clips that name only a path: gs://BUCKET/clips/...")
    ] = None,
) -> int:
    """Bring a library of the previous backend into the database.

    That is videos, transcripts, moments, thumbnails, clips, the URL registry and the pipeline history. Nothing in DIR
    is changed, and importing again changes nothing. The server serves the files from where they lie, or with --copy
    from STORAGE_URL.
    """
    with open_migrated_servers(redis=False) as settings:
        from app.cli.library_import import execute_import  # a second of imports, which no other command needs
        from app.importer.importing import ImportOptions

        return execute_import(settings, directory, ImportOptions(dry_run, bucket, copy), report)
