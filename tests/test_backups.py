"""`db backup` and `db restore`, plain dumps, and the commands of the README."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.core.config import Settings
from app.core.errors import Conflict, DatabaseUnavailable, InvalidInput
from app.database import open_async_connection
from app.database.catalog import list_schema_differences
from app.database.migrations import list_migration_revisions
from app.embedded.binaries import find_postgres_client
from app.services import backups
from app.services.search_index import index_if_little
from tests.cli.test_command_line import run
from tests.conftest import Databases, as_superuser, migrate
from tests.factories import make_clip, make_moment, make_transcript, make_video
from tests.migrations.running import execute, fetch
from tests.pgbouncer import needs_pgbouncer, run_pgbouncer
from tests.services.searching import search

_ROOT = Path(__file__).resolve().parents[1]
_TABLES = "videos", "transcripts", "moments", "clips", "pipeline_history", "search.transcripts", "search.passages"


_FULL_DISK = """#!/bin/sh
[ "$1" = --version ] && echo "pg_dump (PostgreSQL) 99.1" && exit
echo "pg_dump: error: could not write to file: No space left on device" >&2
exit 1
"""


def program(name: str) -> str:
    return str(find_postgres_client(name) or shutil.which(name))


def shell(*command: str, text: bytes = b"") -> bytes:
    result = subprocess.run(command, input=text, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


def rows_of(url: str) -> dict[str, list[tuple[Any, ...]]]:
    return {table: fetch(url, f"SELECT * FROM {table} ORDER BY 1, 2") for table in _TABLES}


@pytest.fixture
async def library_url(own_database_url: str) -> str:
    """The address of a database with a row of most kinds."""
    async with open_async_connection(Settings(database_url=own_database_url)) as conn:
        video = await make_video(conn, identifier="talk", title="Grüße 東京", duration_seconds=1 / 3)
        await make_transcript(conn, video_id=video.id)
        moment = await make_moment(conn, video_id=video.id)
        await make_moment(conn, video_id=video.id, parent_id=moment.id, is_refined=True, start_time=30, end_time=40)
        await make_clip(conn, video_id=video.id, moment_id=moment.id)
    return own_database_url


@pytest.fixture
def empty_url(databases: Databases) -> str:
    return databases.create()


def test_a_restored_dump_is_as_the_schema_says_and_can_be_migrated(library_url: str, empty_url: str) -> None:
    dump = shell(program("pg_dump"), library_url)
    shell(program("psql"), "-q", "-v", "ON_ERROR_STOP=1", "-1", empty_url, text=dump)
    assert list_schema_differences(Settings(database_url=empty_url)) == []
    migrate(empty_url)
    assert rows_of(empty_url) == rows_of(library_url)
    with psycopg.connect(empty_url, autocommit=True) as conn:
        conn.execute("ALTER TABLE pipeline.runs DROP CONSTRAINT runs_callback_status_check")
        conn.execute(
            "ALTER TABLE pipeline.runs ADD CONSTRAINT runs_callback_status_check "
            "CHECK (callback_status IN ('waiting', 'delivered'))"
        )
    (line,) = list_schema_differences(Settings(database_url=empty_url))
    assert line.startswith("constraint runs_callback_status_check on pipeline.runs is CHECK")


@pytest.mark.parametrize("options", [[], ["--inserts"], ["--table=public.*"]])
def test_a_data_only_dump_is_restored_into_a_migrated_database(
    options: list[str], library_url: str, databases: Databases, template_url: str
) -> None:
    url = databases.create(template_url)
    dump = shell(program("pg_dump"), "--data-only", *options, library_url)
    shell(program("psql"), "-q", "-v", "ON_ERROR_STOP=1", "-1", url, text=dump)
    assert rows_of(url) == rows_of(library_url)
    assert fetch(url, "SELECT version_num FROM alembic_version") == [(list_migration_revisions()[0],)]


@pytest.mark.parametrize("options", [[], ["--table=public.*"]])
async def test_an_indexed_library_is_searchable_after_a_data_only_dump(
    options: list[str], library_url: str, databases: Databases, template_url: str
) -> None:
    url = databases.create(template_url)
    async with open_async_connection(Settings(database_url=library_url)) as conn:
        await index_if_little(conn)
    passages = "SELECT position, text, word_starts, document::text FROM search.passages"
    dump = shell(program("pg_dump"), "--data-only", *options, library_url)
    shell(program("psql"), "-q", "-v", "ON_ERROR_STOP=1", "-1", url, text=dump)
    async with open_async_connection(Settings(database_url=url)) as conn:
        assert [hit.video.identifier for hit in (await search(conn, "hello")).videos] == ["talk"]
        assert [hit.video.identifier for hit in (await search(conn, "gr\u00fc\u00dfe")).videos] == ["talk"]
    assert fetch(url, passages) == fetch(library_url, passages)
    assert len(fetch(url, passages)) == 1


def test_a_data_only_archive_is_restored_into_a_migrated_database(
    library_url: str, databases: Databases, template_url: str, tmp_path: Path
) -> None:
    url = databases.create(template_url)
    shell(program("pg_dump"), "-Fc", "--data-only", "--file", str(tmp_path / "dump"), library_url)
    shell(program("pg_restore"), "--data-only", "-e", "-1", "-d", url, str(tmp_path / "dump"))
    assert rows_of(url) == rows_of(library_url)


def test_a_data_only_dump_is_restored_without_triggers(
    library_url: str, databases: Databases, template_url: str, superuser_url: str
) -> None:
    url = as_superuser(databases.create(template_url), superuser_url)
    dump = shell(program("pg_dump"), "--data-only", "--disable-triggers", "-T", "alembic_version", library_url)
    shell(program("psql"), "-q", "-v", "ON_ERROR_STOP=1", "-1", url, text=dump)
    assert rows_of(url) == rows_of(library_url)


def test_a_backup_is_restored_into_a_new_database(library_url: str, databases: Databases, tmp_path: Path) -> None:
    backup, name = tmp_path / "backup", library_url.rpartition("/")[2] + "_new"
    rows = rows_of(library_url)
    execute(library_url, f"ALTER DATABASE {library_url.rpartition('/')[2]} SET client_encoding = 'LATIN1'")
    settings = {"STORAGE_URL": "gs://bucket/media", "DATABASE_URL": library_url}
    backed_up = run(tmp_path / "data", "db", "backup", str(backup), **settings)
    assert backed_up.returncode == 0, backed_up.stderr
    assert "gs://bucket/media" in backed_up.stdout
    assert os.listdir(tmp_path) == ["backup"]
    try:
        url = databases.url_of(name)
        restored = run(tmp_path / "data", "db", "restore", str(backup), DATABASE_URL=url)
        assert restored.returncode == 0, restored.stderr
        assert f"at revision {list_migration_revisions()[0]}\n" in restored.stdout
        assert str(tmp_path / "data" / "media") in restored.stdout
        assert rows_of(url) == rows
        assert list_schema_differences(Settings(database_url=url)) == []
        again = run(tmp_path / "data", "db", "restore", str(backup), DATABASE_URL=url)
    finally:
        databases.drop(name)
    assert again.returncode == 1
    assert again.stderr == f"The database {name} is not empty: clips has rows; restore into a new database\n"


def test_a_backup_is_restored_into_a_migrated_database_without_rows(
    library_url: str, databases: Databases, template_url: str, tmp_path: Path
) -> None:
    url = databases.create(template_url)
    backups.create_backup(Settings(database_url=library_url), tmp_path / "backup")
    restored = run(tmp_path / "data", "db", "restore", str(tmp_path / "backup"), DATABASE_URL=url)
    assert restored.returncode == 0, restored.stderr
    assert rows_of(url) == rows_of(library_url)


def test_a_backup_is_restored_into_a_database_whose_videos_were_deleted(
    library_url: str, databases: Databases, template_url: str, tmp_path: Path
) -> None:
    url = databases.create(template_url)
    execute(url, "INSERT INTO videos (identifier, cloud_url) VALUES ('talk', 'file:///talk.mp4'); DELETE FROM videos")
    backups.create_backup(Settings(database_url=library_url), tmp_path / "backup")
    restored = run(tmp_path / "data", "db", "restore", str(tmp_path / "backup"), DATABASE_URL=url)
    assert restored.returncode == 0, restored.stderr
    assert rows_of(url) == rows_of(library_url)
    assert list_schema_differences(Settings(database_url=url)) == []


def test_a_backup_is_not_restored_under_a_server_that_might_add_rows(
    library_url: str, databases: Databases, template_url: str, tmp_path: Path
) -> None:
    url = databases.create(template_url)
    backups.create_backup(Settings(database_url=library_url), tmp_path / "backup")
    with psycopg.connect(url), pytest.raises(Conflict, match="in use by 1 other connection: stop the"):
        backups.restore_backup(Settings(database_url=url), tmp_path / "backup")


def test_a_table_of_another_program_is_not_touched(library_url: str, empty_url: str, tmp_path: Path) -> None:
    with psycopg.connect(empty_url) as conn:
        conn.execute("CREATE TABLE others ()")
    backups.create_backup(Settings(database_url=library_url), tmp_path / "backup")
    refused = run(tmp_path / "data", "db", "restore", str(tmp_path / "backup"), DATABASE_URL=empty_url)
    assert refused.returncode == 1
    assert "is not empty: it has others;" in refused.stderr


def test_a_damaged_backup_restores_nothing(library_url: str, empty_url: str, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backups.create_backup(Settings(database_url=library_url), backup)
    content = backup.read_bytes()
    backup.write_bytes(content[:-200])
    with pytest.raises(InvalidInput, match=r"^The backup is damaged, and nothing was restored: "):
        backups.restore_backup(Settings(database_url=empty_url), backup)
    assert fetch(empty_url, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []


@pytest.mark.parametrize("content", [b"", b"-- a text\n" * 9, b"PGDMP"])
def test_a_file_that_is_no_backup_is_one_sentence(content: bytes, empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"/file is not a backup made by `python -m app db backup`$"):
        backups.restore_backup(Settings(database_url=empty_url), tmp_path / "file")


def test_a_backup_that_fails_leaves_the_one_before(
    library_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup, settings = tmp_path / "backup", Settings(database_url=library_url)
    backup.write_bytes(b"the one before")
    (tmp_path / "pg_dump").write_text(_FULL_DISK)
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(
        DatabaseUnavailable, match=r"^The backup stopped: could not write to file: No space left on device$"
    ):
        backups.create_backup(settings, backup)
    assert backup.read_bytes() == b"the one before"
    assert sorted(os.listdir(tmp_path)) == ["backup", "pg_dump"]


def test_a_missing_program_is_one_sentence(library_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "find_postgres_client", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DatabaseUnavailable, match=r"install the package postgresql-client-\d+, or "):
        backups.create_backup(Settings(database_url=library_url), tmp_path / "backup")


def test_a_folder_that_is_not_there_is_one_sentence(library_url: str, tmp_path: Path) -> None:
    result = run(tmp_path / "data", "db", "backup", str(tmp_path / "no" / "backup"), DATABASE_URL=library_url)
    assert result.returncode == 1
    assert result.stderr == f"The backup cannot be written to {tmp_path}/no/backup: No such file or directory\n"


@needs_pgbouncer
def test_a_backup_through_a_pooler_is_refused(library_url: str, tmp_path: Path) -> None:
    with run_pgbouncer(library_url) as pooler, pytest.raises(DatabaseUnavailable, match="set DATABASE_SYNC_URL"):
        backups.create_backup(Settings(database_url=pooler.url(library_url)), tmp_path / "backup")


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    section = (_ROOT / "README.md").read_text().partition("### Back up and restore\n")[2].partition("\n### ")[0]
    commands = [
        line.partition("#")[0].split()
        for block in re.findall(r"```\n(.*?)```", section, re.DOTALL)
        for line in block.splitlines()
    ]
    assert [command[0] for command in commands] == [".venv/bin/python"] * len(commands)
    assert len(commands) >= 3
    before, after = tmp_path / "before", tmp_path / "after"
    assert run(before, "db", "upgrade").returncode == 0
    for command in commands:
        result = run(before if command[4] == "backup" else after, *command[3:])
        assert result.returncode == 0, (command, result.stdout, result.stderr)
