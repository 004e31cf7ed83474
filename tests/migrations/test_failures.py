"""What `alembic` says when it cannot begin: one sentence on standard error, status 1, and never the password."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.core.config import Settings
from app.core.errors import DatabaseAhead, DatabaseUnavailable
from app.database import migrations
from app.database.migrations import create_database
from app.embedded import EmbeddedPostgres
from tests.conftest import Databases, without_password
from tests.migrations.running import execute, fail_alembic, run_alembic
from tests.serving import free_port


def test_a_database_that_does_not_exist(own_database_url: str) -> None:
    place = without_password(own_database_url)
    name = place.rpartition("/")[2]
    assert fail_alembic(own_database_url + "_no", "upgrade", "head") == (
        f'Cannot connect to {place}_no: database "{name}_no" does not exist; create it with `python -m app db create`\n'
    )


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}/videos"
        said = fail_alembic(f"postgresql://me:hunter2@{place}", "upgrade", "head")
    assert said == f"Cannot connect to me@{place}: Connection refused\n"


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that asks for a password."""
    folder: Path = tmp_path_factory.mktemp("guarded") / "postgres"
    settings = {"fsync": "off", "shared_buffers": "4MB"}
    with EmbeddedPostgres(folder, free_port(), settings, superuser=True) as server:
        execute(server.superuser_url, "CREATE USER guest PASSWORD 'correct horse' NOCREATEDB")
        execute(server.superuser_url, "CREATE USER owner PASSWORD 'correct horse' NOCREATEDB")
        execute(server.superuser_url, "CREATE DATABASE owned OWNER owner")
        rules = ("host postgres owner 127.0.0.1/32 reject", "host all all 127.0.0.1/32 scram-sha-256", "")
        (folder / "pg_hba.conf").write_text("\n".join(rules))
        execute(server.superuser_url, "SELECT pg_reload_conf()")
        yield server


def test_a_wrong_password(guarded_server: EmbeddedPostgres) -> None:
    place = f"127.0.0.1:{guarded_server.port}/postgres"
    said = fail_alembic(f"postgresql+asyncpg://guest:hunter2%21%40%2F@{place}", "upgrade", "head")
    assert said == f'Cannot connect to guest@{place}: password authentication failed for user "guest"\n'


def test_a_missing_password(guarded_server: EmbeddedPostgres) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"/postgres: fe_sendauth: no password supplied$"):
        run_alembic(f"postgresql://guest@127.0.0.1:{guarded_server.port}/postgres", "upgrade", "head")


def test_a_user_who_may_not_create_databases(guarded_server: EmbeddedPostgres) -> None:
    url = f"postgresql://guest:correct%20horse@127.0.0.1:{guarded_server.port}/videos"
    with pytest.raises(DatabaseUnavailable, match=r"^guest may not create databases: ask for videos$"):
        create_database(Settings(database_url=url))


def test_an_owner_needs_no_right_beyond_his_database(guarded_server: EmbeddedPostgres) -> None:
    url = f"postgresql://owner:correct%20horse@127.0.0.1:{guarded_server.port}/owned"
    assert not create_database(Settings(database_url=url))


def test_a_user_who_may_not_make_tables(guarded_server: EmbeddedPostgres) -> None:
    url = f"postgresql://guest:correct%20horse@127.0.0.1:{guarded_server.port}/owned"
    said = "The migration stopped: permission denied for schema public (as user guest)"
    assert fail_alembic(url, "upgrade", "head").splitlines()[-1] == said
    with pytest.raises(DatabaseUnavailable, match=re.escape(said)):
        run_alembic(url, "upgrade", "head")


def test_a_user_who_may_not_read_the_revision(guarded_server: EmbeddedPostgres) -> None:
    owners = f"postgresql://owner:correct%20horse@127.0.0.1:{guarded_server.port}/owned"
    execute(owners, "CREATE TABLE alembic_version (version_num text)")
    said = "The migration stopped: permission denied for table alembic_version (as user guest)"
    try:
        assert fail_alembic(owners.replace("owner", "guest"), "upgrade", "head") == said + "\n"
    finally:
        execute(owners, "DROP TABLE alembic_version")


def test_a_database_without_the_schema_public(databases: Databases) -> None:
    url = databases.create()
    execute(url, "DROP SCHEMA public")
    said = "The database has no schema public, which the tables belong to: create it\n"
    assert fail_alembic(url, "upgrade", "head") == said


def test_an_address_that_cannot_work() -> None:
    assert fail_alembic("postgresql://me:hunter2@h", "upgrade", "head") == "DATABASE_URL names no database\n"


def test_a_database_of_a_newer_version(own_database_url: str) -> None:
    execute(own_database_url, "UPDATE alembic_version SET version_num = '9000'")
    assert fail_alembic(own_database_url, "upgrade", "head") == (
        "The database is at revision 9000, which this version of the code does not know: run a newer one\n"
    )
    for arguments in (("upgrade", "head"), ("downgrade", "-1"), ("current",)):
        with pytest.raises(DatabaseAhead):
            run_alembic(own_database_url, *arguments)


def test_a_database_is_created_whatever_the_language_of_the_server(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = migrations._open_sync_connection

    def connect_in_german(*arguments: Any) -> "psycopg.Connection[Any]":
        try:
            return connect(*arguments)
        except psycopg.OperationalError:
            raise psycopg.OperationalError("FATAL:  Datenbank existiert nicht") from None

    monkeypatch.setattr(migrations, "_open_sync_connection", connect_in_german)
    settings = Settings(database_url=own_database_url + "_german")
    try:
        assert create_database(settings)
        assert not create_database(settings)
    finally:
        execute(own_database_url, f"DROP DATABASE IF EXISTS {own_database_url.rpartition('/')[2]}_german")


def test_a_database_that_another_command_creates_meanwhile(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = own_database_url + "_meanwhile"
    name = url.rpartition("/")[2]
    look_beside = migrations._connect_to_postgres_database

    def create_it_first(*arguments: Any) -> "psycopg.Connection[Any]":
        with psycopg.connect(own_database_url, autocommit=True) as conn:
            conn.execute(psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(psycopg.sql.Identifier(name)))
        return look_beside(*arguments)

    monkeypatch.setattr(migrations, "_connect_to_postgres_database", create_it_first)
    try:
        assert not create_database(Settings(database_url=url))
    finally:
        execute(own_database_url, f"DROP DATABASE IF EXISTS {name}")


def test_a_database_is_created_once(own_database_url: str) -> None:
    url = own_database_url + '_new "database"'
    settings = Settings(database_url=url.replace(" ", "%20").replace('"', "%22"))
    try:
        assert create_database(settings)
        assert not create_database(settings)
    finally:
        with psycopg.connect(own_database_url, autocommit=True) as conn:
            name = psycopg.sql.Identifier(url.rpartition("/")[2])
            conn.execute(psycopg.sql.SQL("DROP DATABASE IF EXISTS {}").format(name))
