"""`python -m app …`: the command line."""

import os
import signal
import sys
from types import FrameType


def _end_quietly(number: int, frame: FrameType | None) -> None:
    """End without a traceback: before `main` begins, there is nothing to undo."""
    os._exit(0 if sys.argv[1:] == ["run"] else 128 + number)


if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end_quietly)  # the imports below take a second

import argparse
import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import uvicorn
from redis.exceptions import RedisError

from app.cli import database as database_command
from app.cli import intake as intake_command
from app.cli import library_import
from app.cli import models as models_command
from app.cli import run as run_command
from app.cli import worker as worker_command
from app.core.addresses import OPEN_TO_ALL, is_loopback
from app.core.api_keys import Access, make_api_key
from app.core.config import Settings, describe_settings, get_settings
from app.core.console import SafeArgumentParser, accept_any_text, open_console
from app.core.errors import ConfigurationError, VideoMomentsError
from app.core.logging import configure_logging, mask_tracebacks
from app.core.masking import mask_secrets
from app.core.redis import redis_unavailable
from app.database import connect
from app.database.catalog import check_database
from app.database.errors import describe_database_failure
from app.database.migrations import code_revisions, create_database, read_database_revision, upgrade
from app.embedded import EmbeddedError
from app.embedded.local import local_servers, refuse_half_named, uses_embedded_postgres
from app.repositories.search import SearchRepository

_log = logging.getLogger(__name__)
_console = open_console()
_errors = open_console(stderr=True)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 1 for an expected failure, which is one sentence on stderr."""
    accept_any_text()
    mask_tracebacks()
    options = _parser().parse_args(arguments)
    if signal.getsignal(signal.SIGINT) is _end_quietly:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with _signals_exit():
            status: int = options.run(options)
        return status
    except (VideoMomentsError, EmbeddedError, RedisError, psycopg.Error) as error:
        if (reason := _describe(error)) is None:
            raise
        _errors.print(mask_secrets(reason), markup=False)
        return 1
    except KeyboardInterrupt:
        return 130


def _describe(error: Exception) -> str | None:
    """Return one sentence for what a command failed with, or None for a defect of this code."""
    if isinstance(error, psycopg.Error):
        return describe_database_failure(error, get_settings().database_parameters)
    expected = redis_unavailable(error) if isinstance(error, RedisError) else error
    return str(expected) if expected else None


def _parser() -> argparse.ArgumentParser:
    parser = SafeArgumentParser(prog="python -m app", description="VideoMoments")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run", help="serve the API, or find the moments of one video, on embedded servers where none is set"
    )
    run_command.add_arguments(run)
    run.set_defaults(run=_run)

    importer = commands.add_parser("import", help="bring a library of the previous backend into the database")
    library_import.add_arguments(importer)
    importer.set_defaults(run=_import)

    worker = commands.add_parser("worker", help="work on runs, beside a server or on another machine")
    worker_command.add_arguments(worker)
    worker.set_defaults(run=_work)

    intake = commands.add_parser("intake", help="what other programs asked for and could not become a run")
    intake_command.add_arguments(intake)
    intake.set_defaults(run=_intake)

    models = commands.add_parser("models", help="the AI models that runs use: their addresses, keys and parameters")
    models_command.add_arguments(models)
    models.set_defaults(run=_models)

    database = commands.add_parser("db", help="create, migrate and check the database")
    actions = database.add_subparsers(required=True, metavar="ACTION")
    for name, action, text in (
        ("create", _create, "create the database where it does not exist"),
        ("upgrade", _upgrade, "migrate the database to this code's revision"),
        ("current", _current, "print the revision of the database and of the code"),
        ("check", _check, "compare the database with db/schema.sql; exit status 1 where they differ"),
        ("rebuild-search", _rebuild_search, "make again what full-text search needs"),
    ):
        actions.add_parser(name, help=text).set_defaults(run=action)
    for name, action, text in (
        ("backup", _back_up, "write the database to a file, which is replaced once the new one is complete"),
        ("restore", _restore, "restore a backup into a new database or one without rows"),
    ):
        parser_with_file = actions.add_parser(name, help=text)
        parser_with_file.add_argument("file", type=Path, metavar="FILE")
        parser_with_file.set_defaults(run=action)
    psql = actions.add_parser("psql", help="open psql on the database; what follows `--` is for psql itself")
    psql.add_argument("arguments", nargs="*", metavar="ARGUMENT")
    psql.set_defaults(run=_open_psql)

    keys = commands.add_parser("keys", help="the keys that clients of the API send")
    new = keys.add_subparsers(required=True, metavar="ACTION").add_parser("new", help="make a key and print it once")
    scope = new.add_mutually_exclusive_group()
    scope.add_argument("--read-only", action="store_true", help="a key that may read and change nothing")
    scope.add_argument(
        "--admin", action="store_true", help="a key that may change models too, and where they are called"
    )
    new.add_argument("--name", help="what the log calls it; without one it gets a name of its own")
    new.set_defaults(run=_new_key)

    commands.add_parser("settings", help="print every setting with its default").set_defaults(run=_settings)
    return parser


def _run(options: argparse.Namespace) -> int:
    refuse_half_named(get_settings())
    if options.video is not None:
        return _run_once(options)
    run_command.refuse_options_without_video(options)
    with _ended_by_signals():
        return _run_server()
    return 0


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Take Ctrl-C and SIGTERM for what they are to a server: its ordinary end."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except SystemExit as end:
        if end.code != 128 + signal.SIGTERM:
            raise


def _run_server() -> int:
    is_embedded = uses_embedded_postgres(get_settings())
    with local_servers(redis=True, share=False) as settings:
        configure_logging(settings)
        create_database(settings)
        upgrade()
        if settings.run_pipeline_worker is None:
            os.environ["RUN_PIPELINE_WORKER"] = "true"  # the server reads its settings again
            get_settings.cache_clear()
        with _listening(settings) as listener:
            _print_addresses(settings, is_embedded)
            if not settings.api_keys and not is_loopback(settings.host):
                _log.warning(OPEN_TO_ALL, settings.host, settings.port)
            return _serve(listener)


def _run_once(options: argparse.Namespace) -> int:
    with local_servers(redis=True, share=True) as settings:
        quiet = {} if "log_level" in settings.model_fields_set else {"log_level": "warning"}
        configure_logging(settings.model_copy(update=quiet))
        create_database(settings)
        upgrade()
        return run_command.run(options, settings)


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigurationError(f"Cannot listen on {settings.host}:{settings.port}: {reason}") from None
    with listener:
        yield listener


def _serve(listener: socket.socket) -> int:
    config = uvicorn.Config(
        "app.main:app",
        log_config=None,
        access_log=False,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http="app.api.http_protocol:LimitedProtocol",
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    server.run([listener])
    return 0 if server.started else 1


def _print_addresses(settings: Settings, is_embedded: bool) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{settings.port}"
    data = settings.data_dir.resolve() if is_embedded else "the database of DATABASE_URL"
    for line in (
        f"VideoMoments  {url}",
        f"  API docs    {url}/docs",
        f"  health      {url}/health",
        f"  data        {data}",
        "  import      make import DIR=path/to/static",
        "Ctrl-C ends it.",
    ):
        _console.print(line, markup=False)


def _import(options: argparse.Namespace) -> int:
    refuse_half_named(get_settings())
    with local_servers(redis=False, share=True) as settings:
        configure_logging(settings)
        create_database(settings)
        upgrade()
        return library_import.run(options, settings)


def _work(options: argparse.Namespace) -> int:
    refuse_half_named(get_settings())
    with local_servers(redis=True, share=True) as settings:
        configure_logging(settings)
        create_database(settings)
        upgrade()
        return worker_command.run(options, settings)


def _intake(options: argparse.Namespace) -> int:
    with local_servers(redis=False, share=True) as settings:
        return intake_command.run(options, settings)


def _models(options: argparse.Namespace) -> int:
    with local_servers(redis=True, share=True) as settings:
        return models_command.run(options, settings)


def _create(options: argparse.Namespace) -> int:
    with local_servers(redis=False, share=True) as settings:
        name = settings.migration_parameters["dbname"]
        _console.print(f"Created {name}" if create_database(settings) else f"{name} exists already", markup=False)
        return 0


def _upgrade(options: argparse.Namespace) -> int:
    with local_servers(redis=False, share=True) as settings:
        create_database(settings)
        upgrade()
    return _current(options)


def _current(options: argparse.Namespace) -> int:
    with local_servers(redis=False, share=True) as settings:
        revision, head = read_database_revision(settings), code_revisions()[0]
        _console.print(f"database {revision or 'not migrated'}", markup=False)
        _console.print(f"code     {head}", markup=False)
        return 0 if revision == head else 1


def _check(options: argparse.Namespace) -> int:
    with local_servers(redis=False, share=True) as settings:
        differences = check_database(settings)
        for line in differences:
            _console.print(line, markup=False)
        if not differences:
            _console.print("The database is as db/schema.sql says")
        return 1 if differences else 0


def _rebuild_search(options: argparse.Namespace) -> int:
    async def rebuild(settings: Settings) -> int:
        async with connect(settings) as conn, conn.transaction():
            return await SearchRepository(conn).rebuild()

    with local_servers(redis=False, share=True) as settings:
        count = asyncio.run(rebuild(settings))
        _console.print(f"{count} transcripts are searchable")
        return 0


def _back_up(options: argparse.Namespace) -> int:
    with local_servers(redis=False, share=True) as settings:
        return database_command.run_backup(options, settings)


def _restore(options: argparse.Namespace) -> int:
    with local_servers(redis=False, share=True) as settings:
        return database_command.run_restore(options, settings)


def _open_psql(options: argparse.Namespace) -> int:
    with local_servers(redis=False, share=True) as settings:
        return database_command.run_psql(options, settings)


def _new_key(options: argparse.Namespace) -> int:
    access: Access = "read" if options.read_only else "admin" if options.admin else "write"
    secret, kept = make_api_key(options.name, access)
    _console.print(f"Key, which is shown this once:  {secret}", markup=False)
    _console.print(f"Entry for API_KEYS:             {kept}", markup=False)
    return 0


def _settings(options: argparse.Namespace) -> int:
    for name, default, meaning in describe_settings():
        _console.print(f"{name}={default}  # {meaning}", markup=False)
    return 0


@contextmanager
def _signals_exit() -> Iterator[None]:
    """Make SIGTERM, and the end of the terminal, unwind the stack, so that everything that was started is stopped."""
    received: list[int] = []

    def leave(number: int, frame: FrameType | None) -> None:
        received.append(number)
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):
            raise SystemExit(128 + number)
        interrupt(signal.SIGINT, frame)  # that of asyncio cancels the main task, which an exception would not end well

    with _handling(signal.SIGTERM, leave), ExitStack() as stack:
        if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup has it ignored
            stack.enter_context(_handling(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM)))
        try:
            yield
        except KeyboardInterrupt:
            if received:
                raise SystemExit(128 + received[0]) from None
            raise


@contextmanager
def _handling(number: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


if __name__ == "__main__":
    sys.exit(main())
