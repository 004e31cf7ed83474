"""The command line: its commands, what ends them, and their exit statuses."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from app import __version__
from app.cli.configuration import keys, print_settings
from app.cli.database import database
from app.cli.import_command import import_directory
from app.cli.intake import intake
from app.cli.models import models
from app.cli.run import run
from app.cli.signals import signals_exit
from app.cli.worker import work
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


class _SignalledGroup(TyperGroup):
    def invoke(self, *context: Any) -> Any:
        with signals_exit():
            return super().invoke(*context)


commands = typer.Typer(
    cls=_SignalledGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
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
    short_help="Serve the API, or find the moments of one video, on embedded servers where none is set.",
    epilog="Exit status with VIDEO: 0 when the run has completed, 1 when it has failed, 130 when it was cancelled.",
)(run)
commands.command(
    "import",
    short_help="Bring a library of the previous backend into the database.",
    epilog="Exit status: 0 when everything is in; 1 when a row or a file was refused or a video failed, and the rest is"
    " in; 2 when nothing could be imported at all, or when the storage became full or went away: importing again goes"
    " on.",
)(import_directory)
commands.command("worker", short_help="Work on runs, beside a server or on another machine.")(work)
commands.add_typer(intake, name="intake", short_help="What other programs asked for and could not become a run.")
commands.add_typer(
    models, name="models", short_help="The AI models that runs use: their addresses, keys and parameters."
)
commands.add_typer(database, name="db", short_help="Create, migrate and check the database.")
commands.add_typer(keys, name="keys", short_help="The keys that clients of the API send.")
commands.command("settings")(print_settings)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status.

    An expected failure is 1 and one sentence on stderr, a usage error 2.
    """
    accept_any_text()
    mask_tracebacks()
    try:
        return invoke(arguments)
    except typer.TyperException as error:
        _print_usage_error(error)
        return error.exit_code
    except typer.Abort:  # the end of the input instead of an answer
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if (reason := _describe_failure(error)) is None:
            raise
        _errors.print(mask_secrets(reason), markup=False)
        return 1


def invoke(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status, or raise what it failed with."""
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


def _describe_failure(error: Exception) -> str | None:
    """Return one sentence for what a command failed with, or None for a defect of this code."""
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
