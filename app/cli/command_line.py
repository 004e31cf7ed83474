"""The command line: its commands, what ends them, and their exit statuses."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from app import __version__
from app.cli.database import database
from app.cli.intake import intake
from app.cli.mcp import serve_mcp_over_stdio
from app.cli.models import models
from app.cli.run import serve_or_run_video
from app.cli.servers import open_migrated_servers
from app.cli.signals import exit_on_signals
from app.cli.worker import run_worker_until_signal
from app.core.console import accept_any_text, open_console
from app.core.errors import VideoMomentsError
from app.core.logging import mask_tracebacks
from app.core.masking import mask_secrets

_PROGRAM = "python -m app"
_SCRIPT = "videomoments"  # in .venv/bin: a shell completes the arguments of a program, not those of a module
_COMPLETION_VARIABLE = "_VIDEOMOMENTS_COMPLETE"
_COMPLETION_OPTIONS = {"--install-completion", "--show-completion"}

_console = open_console()
_errors = open_console(stderr=True)


class _SignalHandlingGroup(TyperGroup):
    """The group of all commands, which a signal ends by an exception."""

    def invoke(self, *context: Any) -> Any:
        with exit_on_signals():
            return super().invoke(*context)


commands = typer.Typer(
    cls=_SignalHandlingGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        _console.print(f"VideoMoments {__version__}")
        raise typer.Exit


@commands.callback()
def _describe_program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """VideoMoments: find, clip and refine the best moments of videos."""


commands.command(
    "run",
    short_help="Serve the API, or find the moments of one video, on embedded servers where none is set.",
    epilog="Exit status with VIDEO: 0 when the run has completed, 1 when it has failed, 130 when it was cancelled.",
)(serve_or_run_video)


def _parse_library_folder(text: str) -> Path:
    from app.importer.legacy_files import NotALibrary, find_library_root

    try:
        return find_library_root(Path(text))
    except NotALibrary as error:
        raise typer.BadParameter(str(error)) from None


def _parse_report_path(text: str) -> Path:
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.absolute().parent}")
    return path


@commands.command(
    "import",
    short_help="Bring a library of the previous backend into the database.",
    epilog="Exit status: 0 when everything is in; 1 when a row or a file was refused or a video failed, and the rest is"
    " in; 2 when nothing could be imported at all, or when the storage became full or went away: importing again goes"
    " on.",
)
def import_library_folder(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", parser=_parse_library_folder, help="the static/ folder, or its parent")
    ],
    copy: Annotated[bool, typer.Option("--copy", help="bring the files of DIR into STORAGE_URL, too")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="write nothing, and say what would be written")] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=_parse_report_path, help="write the whole report to FILE, as JSON"),
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


commands.command("worker", short_help="Work on runs, beside a server or on another machine.")(run_worker_until_signal)
commands.command("mcp", short_help="Serve tools for assistants over standard input and output.")(serve_mcp_over_stdio)
commands.add_typer(intake, name="intake", short_help="What other programs asked for and could not become a run.")
commands.add_typer(
    models, name="models", short_help="The AI models that runs use: their addresses, keys and parameters."
)
commands.add_typer(database, name="db", short_help="Create, migrate and check the database.")
keys = typer.Typer(rich_markup_mode=None, help="The keys that clients of the API send.")
commands.add_typer(keys, name="keys", short_help="The keys that clients of the API send.")


@keys.command("new")
def print_new_api_key(
    read_only: Annotated[bool, typer.Option("--read-only", help="a key that may read and change nothing")] = False,
    admin: Annotated[
        bool, typer.Option("--admin", help="a key that may change models too, and where they are called")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="what the log calls it; without one it gets a name of its own")
    ] = None,
) -> int:
    """Make a key and print it once."""
    from app.core.api_keys import Access, make_api_key

    if read_only and admin:
        raise typer.BadParameter("not allowed with --read-only", param_hint="'--admin'")
    access: Access = "read" if read_only else "admin" if admin else "write"
    secret, entry = make_api_key(name, access)
    _console.print(f"Key, which is shown this once:  {secret}", markup=False)
    _console.print(f"Entry for API_KEYS:             {entry}", markup=False)
    return 0


@commands.command("settings")
def print_settings() -> int:
    """Print every setting with its default."""
    from app.core.config import describe_settings

    for name, default, meaning in describe_settings():
        _console.print(f"{name}={default}  # {meaning}", markup=False)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 1 with one sentence on stderr for a failure, 2 for a usage error."""
    accept_any_text()
    mask_tracebacks()
    try:
        return run_command(arguments)
    except typer.TyperException as error:
        _print_usage_error(error)
        return error.exit_code
    except typer.Abort:  # the end of the input instead of an answer
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if (reason := _describe_expected_failure(error)) is None:
            raise
        _errors.print(mask_secrets(reason), markup=False)
        return 1


def run_command(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    program = _SCRIPT if _COMPLETION_OPTIONS & set(arguments) else _PROGRAM
    command = get_command(commands)
    status: int = command.main(arguments, program, complete_var=_COMPLETION_VARIABLE, standalone_mode=False)
    return status


def _print_usage_error(error: typer.TyperException) -> None:
    context: typer.Context | None = getattr(error, "ctx", None)
    if context is not None:
        for line in context.get_usage().splitlines():
            _errors.print(line, markup=False)
    _errors.print(f"{_PROGRAM}: error: {error.format_message()}", markup=False)


def _describe_expected_failure(error: Exception) -> str | None:
    """Return one sentence for a failure of a server or the input, None for a defect of this code."""
    from psycopg import Error as DatabaseError  # what a command that fails has imported anyway
    from redis.exceptions import RedisError

    from app.core.config import get_settings
    from app.core.redis import translate_redis_error
    from app.database.errors import describe_database_failure
    from app.embedded import EmbeddedError

    if isinstance(error, DatabaseError):
        return describe_database_failure(error, get_settings().database_parameters)
    if isinstance(error, RedisError):
        unavailable = translate_redis_error(error)
        return str(unavailable) if unavailable else None
    return str(error) if isinstance(error, VideoMomentsError | EmbeddedError) else None
