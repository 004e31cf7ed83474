"""Session settings of the role, the database and the address: both kinds of connection work whatever they are."""

from collections.abc import Iterator

import psycopg
import pytest

from app.core.config import Settings
from app.database import open_async_connection
from app.database.catalog import list_schema_differences
from app.database.connection import PINNED
from app.database.migrations import open_blocking_connection
from tests.conftest import Databases, as_superuser, migrate
from tests.database.pools import ask, open_pool, query
from tests.factories import make_moment, make_video
from tests.migrations.running import catalog_of, execute, fetch, write_sql
from tests.pgbouncer import PgBouncer, needs_pgbouncer, run_pgbouncer, server_settings

_HOSTILE = {
    "search_path": "elsewhere, public",
    "client_encoding": "LATIN1",
    "TimeZone": "Asia/Tokyo",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "default_transaction_isolation": "serializable",
    "session_replication_role": "replica",
    "gin_fuzzy_search_limit": "1",
}
_LIMITS = {"statement_timeout": "200ms", "idle_in_transaction_session_timeout": "200ms"}


def set_for_database(url: str, settings: dict[str, str]) -> None:
    name = url.rpartition("/")[2]
    for setting, value in settings.items():
        quoted = value if setting == "search_path" else f"'{value}'"
        execute(url, f"ALTER DATABASE {name} SET {setting} = {quoted}")


@pytest.fixture
def hostile_url(databases: Databases, superuser_url: str) -> str:
    """An empty database whose settings are all others, some of which only a superuser can set, and a hiding schema."""
    url = as_superuser(databases.create(), superuser_url)
    execute(url, "CREATE SCHEMA elsewhere")
    set_for_database(url, _HOSTILE)
    return url


def test_every_pinned_setting_is_tried() -> None:
    assert PINNED.keys() == _HOSTILE.keys()


async def test_both_kinds_of_connection_have_the_pinned_settings(hostile_url: str) -> None:
    statement = "SELECT name, setting FROM pg_settings WHERE name = ANY (%s)"
    async with open_async_connection(Settings(database_url=hostile_url)) as conn:
        assert dict(await (await conn.execute(statement, [[*PINNED]])).fetchall()) == PINNED
    with open_blocking_connection(Settings(database_url=hostile_url).migration_parameters) as sync:
        assert dict(sync.execute(statement, [[*PINNED]]).fetchall()) == PINNED


def test_a_database_is_migrated_and_checked_whatever_its_settings(hostile_url: str, template_url: str) -> None:
    set_for_database(hostile_url, _LIMITS)
    migrate(hostile_url)
    assert catalog_of(hostile_url) == catalog_of(template_url)
    assert query(hostile_url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'elsewhere'::regnamespace") == 0
    assert list_schema_differences(Settings(database_url=hostile_url)) == []


def test_the_search_path_of_the_address_does_not_matter(databases: Databases, template_url: str) -> None:
    url = databases.create()
    execute(url, "CREATE SCHEMA vm")
    migrate(url + "?options=-c%20search_path%3Dvm")
    assert catalog_of(url) == catalog_of(template_url)


def test_a_schema_of_the_users_name_does_not_matter(databases: Databases, template_url: str) -> None:
    url = databases.create()
    execute(url, "CREATE SCHEMA AUTHORIZATION CURRENT_USER")
    migrate(url)
    assert catalog_of(url) == catalog_of(template_url)


def test_the_printed_sql_makes_the_same_schema_whatever_the_settings(hostile_url: str, template_url: str) -> None:
    execute(hostile_url, write_sql("head"))
    assert catalog_of(hostile_url) == catalog_of(template_url)


async def test_numbers_and_text_come_back_as_they_were(hostile_url: str) -> None:
    migrate(hostile_url)
    async with open_pool(hostile_url) as pool, pool.connection() as conn:
        video = await make_video(conn, title="Grüße 東京", duration_seconds=1 / 3)
        await make_moment(conn, video_id=video.id, start_time=0.1, end_time=0.2, title="C:\\new")
        statement = "SELECT to_jsonb(videos) ->> 'title', duration_seconds FROM videos"
        assert await anext(await conn.execute(statement)) == ("Grüße 東京", 1 / 3)
        moments = await conn.execute("SELECT start_time, end_time, title FROM moments")
        assert await anext(moments) == (0.1, 0.2, "C:\\new")


@pytest.fixture(scope="module")
def pooler(postgres_url: str) -> Iterator[PgBouncer]:
    with run_pgbouncer(postgres_url, pool_size=1) as pooler:
        yield pooler


@needs_pgbouncer
async def test_a_pool_leaves_no_setting_behind_in_a_pooler(pooler: PgBouncer, own_database_url: str) -> None:
    set_for_database(own_database_url, {"statement_timeout": "31s", "TimeZone": "Asia/Tokyo"})
    url = pooler.url(own_database_url)
    async with open_pool(url) as pool:
        for _ in range(12):
            await ask(pool)
        async with pool.connection() as conn:
            assert await anext(await conn.execute("SELECT current_setting('TimeZone')")) == ("UTC",)
    settings = server_settings(url, "statement_timeout", "lock_timeout", "search_path", "TimeZone")
    assert settings == ["31s", "0", '"$user", public', "Asia/Tokyo"]
    assert fetch(url, "SELECT name FROM pg_prepared_statements") == []


@needs_pgbouncer
@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"search_path": "elsewhere"}, "search_path = 'public'"),
        ({"search_path": "elsewhere, public"}, "search_path = 'public'"),
        (
            {"extra_float_digits": "0", "default_transaction_isolation": "serializable"},
            "default_transaction_isolation = 'read committed', extra_float_digits = '1'",
        ),
    ],
)
async def test_settings_that_a_pooler_cannot_have_pinned_are_refused_in_one_sentence(
    settings: dict[str, str], needed: str, pooler: PgBouncer, own_database_url: str
) -> None:
    execute(own_database_url, "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.videos ()")
    set_for_database(own_database_url, settings)
    with pytest.raises(psycopg.OperationalError) as refusal:
        async with open_async_connection(Settings(database_url=pooler.url(own_database_url))):
            pass
    (sentence,) = str(refusal.value).splitlines()
    assert f"these are needed: {needed};" in sentence


@needs_pgbouncer
async def test_a_schema_that_hides_no_table_is_no_reason_to_refuse(pooler: PgBouncer, own_database_url: str) -> None:
    execute(own_database_url, "CREATE SCHEMA AUTHORIZATION CURRENT_USER")
    set_for_database(own_database_url, {"extra_float_digits": "3"})
    async with open_async_connection(Settings(database_url=pooler.url(own_database_url))) as conn:
        await make_video(conn)
