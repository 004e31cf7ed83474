"""Extensions that searching can use: everything else works on a server that does not have them, or refuses them."""

from pathlib import Path

import pytest

from app.core.config import Settings
from app.database.catalog import list_schema_differences
from app.services.backups import create_backup, restore_backup
from tests.cli.test_command_line import run
from tests.conftest import Databases, as_superuser, migrate
from tests.migrations.running import execute, fetch

_EXTENSIONS = "SELECT extname FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1"


def make_server_without(databases: Databases, superuser_url: str, control_path: str) -> str:
    """Return the address of an empty database that finds the extensions of a folder only."""
    url = databases.create()
    name = url.rpartition("/")[2]
    execute(as_superuser(url, superuser_url), f"ALTER DATABASE {name} SET extension_control_path = '{control_path}'")
    return url


@pytest.mark.parametrize(
    ("control_path", "extensions", "reasons"),
    [
        ("/nowhere", [], 2),
        ("$system", [("pg_trgm",)], 1),  # where only a superuser may create pgvector
    ],
)
def test_migrations_do_without_extensions_that_are_refused_and_a_command_adds_them_later(
    databases: Databases,
    superuser_url: str,
    tmp_path: Path,
    control_path: str,
    extensions: list[tuple[str]],
    reasons: int,
) -> None:
    url = make_server_without(databases, superuser_url, control_path)
    migrate(url)
    assert fetch(url, _EXTENSIONS) == extensions
    assert list_schema_differences(Settings(database_url=url)) == []
    refused = run(tmp_path / "data", "db", "enable-semantic", DATABASE_URL=url)
    assert refused.returncode == 1
    assert refused.stdout.count("PostgreSQL refuses an extension: ") == reasons
    name = url.rpartition("/")[2]
    execute(as_superuser(url, superuser_url), f"ALTER DATABASE {name} RESET extension_control_path")
    enabled = run(tmp_path / "data", "db", "enable-semantic", DATABASE_URL=url)
    assert enabled.returncode == 0, enabled.stderr
    assert "All passages (0) have vectors" in enabled.stdout
    assert fetch(url, _EXTENSIONS) == [("pg_trgm",), ("vector",)]
    assert list_schema_differences(Settings(database_url=url)) == []


def test_a_pgvector_that_is_too_old_is_refused(own_database_url: str, superuser_url: str) -> None:
    execute(own_database_url, "DROP TABLE search.vectors")
    execute(
        as_superuser(own_database_url, superuser_url),
        "UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'",
    )
    assert fetch(own_database_url, "SELECT search.enable_vectors()") == [("pgvector must be 0.8 or newer",)]
    assert fetch(own_database_url, "SELECT to_regclass('search.vectors')") == [(None,)]


@pytest.mark.parametrize("control_path", ["/nowhere", "$system"])
def test_a_backup_is_restored_without_extensions_that_are_refused(
    own_database_url: str, databases: Databases, superuser_url: str, tmp_path: Path, control_path: str
) -> None:
    execute(own_database_url, "INSERT INTO videos (identifier, cloud_url) VALUES ('talk', 'file:///talk.mp4')")
    create_backup(Settings(database_url=own_database_url), tmp_path / "backup")
    url = make_server_without(databases, superuser_url, control_path)
    restore_backup(Settings(database_url=url), tmp_path / "backup")
    assert fetch(url, "SELECT identifier FROM videos") == [("talk",)]
    assert list_schema_differences(Settings(database_url=url)) == []


def test_a_backup_is_restored_where_an_extension_is_a_superusers(
    own_database_url: str, databases: Databases, superuser_url: str, tmp_path: Path
) -> None:
    create_backup(Settings(database_url=own_database_url), tmp_path / "backup")
    url = databases.create()
    execute(as_superuser(url, superuser_url), "CREATE EXTENSION vector")
    restore_backup(Settings(database_url=url), tmp_path / "backup")
    assert list_schema_differences(Settings(database_url=url)) == []
    assert fetch(url, "SELECT count(*) FROM search.vectors") == [(0,)]
