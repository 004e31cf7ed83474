"""Migrations through a PgBouncer in transaction mode: no session state stays behind, and upgrades take turns."""

from collections.abc import Iterator

import psycopg
import pytest

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable
from app.database.catalog import list_schema_differences
from app.database.migrations import create_database, read_database_revision
from tests.conftest import Databases, migrate
from tests.migrations.running import catalog_of, execute, fetch, run_alembic, start_alembic
from tests.pgbouncer import PgBouncer, needs_pgbouncer, run_pgbouncer, server_settings

pytestmark = needs_pgbouncer


@pytest.fixture(scope="module")
def pooler(postgres_url: str) -> Iterator[PgBouncer]:
    """With two server connections for each database, the least that an upgrade can work with."""
    with run_pgbouncer(postgres_url, pool_size=2) as pooler:
        yield pooler


@pytest.fixture
def url(databases: Databases) -> str:
    """An empty database."""
    return databases.create()


def test_an_upgrade_leaves_no_lock_and_no_setting_behind(pooler: PgBouncer, url: str, template_url: str) -> None:
    execute(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET statement_timeout = '31s'")
    pooled = pooler.url(url)
    migrate(pooled)
    assert catalog_of(url) == catalog_of(template_url)
    assert fetch(url, "SELECT pid FROM pg_locks WHERE locktype = 'advisory'") == []
    with psycopg.connect(pooled, prepare_threshold=None) as busy:  # two clients see both server connections
        busy.execute("SELECT 1")
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "search_path")
        seen = [str(row[0]) for name in names for row in busy.execute("SELECT current_setting(%s)", [name])]
        assert seen == server_settings(pooled, *names) == ["31s", "0", "0", '"$user", public']
        assert busy.execute("SELECT name FROM pg_prepared_statements").fetchall() == []


def test_an_upgrade_goes_on_where_another_client_keeps_a_connection(pooler: PgBouncer, url: str) -> None:
    pooled = pooler.url(url)
    run_alembic(pooled, "upgrade", "head")
    run_alembic(pooled, "downgrade", "base")
    assert read_database_revision(Settings(database_url=pooled)) is None
    run_alembic(pooled, "upgrade", "head")


def test_five_upgrades_at_once_end_well(pooler: PgBouncer, url: str, template_url: str) -> None:
    upgrades = [start_alembic(pooler.url(url), "upgrade", "head") for _ in range(5)]
    said = [upgrade.communicate(timeout=300)[1] for upgrade in upgrades]
    assert [upgrade.returncode for upgrade in upgrades] == [0] * 5, said
    assert sum("Running upgrade" in text for text in said) == 1
    assert catalog_of(url) == catalog_of(template_url)


def test_a_database_is_created_migrated_and_checked(pooler: PgBouncer, databases: Databases, url: str) -> None:
    name = url.rpartition("/")[2] + "_pooled"
    settings = Settings(database_url=pooler.url(databases.url_of(name)))
    try:
        assert create_database(settings)
        assert not create_database(settings)
        migrate(settings.database_url.get_secret_value())
        assert list_schema_differences(settings) == []
    finally:
        databases.drop(name)


def test_a_pooler_with_one_connection_is_named(postgres_url: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.database.migrations._SECOND_CONNECTION_SECONDS", 0.5)
    sentence = r"no second connection .* set DATABASE_SYNC_URL"
    with run_pgbouncer(postgres_url, pool_size=1) as narrow, pytest.raises(DatabaseUnavailable, match=sentence):
        migrate(narrow.url(url))
    assert fetch(url, "SELECT to_regclass('videos')") == [(None,)]
