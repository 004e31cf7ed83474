"""Each connection as the settings want it, in the pool and outside."""

import logging
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.types.json import Jsonb

from app.core.config import Settings
from app.database import Connection, open_async_connection
from tests.conftest import as_user
from tests.database.pools import open_pool


async def setting(conn: Connection, name: str) -> str:
    (value,) = await anext(await conn.execute("SELECT current_setting(%s)", [name]))
    return str(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TimeZone", "UTC"),
        ("application_name", "videomoments"),
        ("statement_timeout", "30s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("client_encoding", "UTF8"),
    ],
)
async def test_a_connection_has_the_settings_of_a_session(name: str, value: str, database_url: str) -> None:
    async with open_async_connection(Settings(database_url=database_url)) as conn:
        assert await setting(conn, name) == value


async def test_the_limits_follow_the_settings(database_url: str) -> None:
    settings = Settings(
        database_url=database_url,
        database_statement_timeout=0.25,
        database_lock_timeout=0,
        database_idle_transaction_timeout=7,
        database_application_name="worker",
    )
    async with open_async_connection(settings) as conn:
        assert await setting(conn, "statement_timeout") == "250ms"
        assert await setting(conn, "lock_timeout") == "0"
        assert await setting(conn, "idle_in_transaction_session_timeout") == "7s"
        assert await setting(conn, "application_name") == "worker"


async def test_a_statement_that_runs_too_long_is_ended(database_url: str) -> None:
    async with open_async_connection(Settings(database_url=database_url, database_statement_timeout=0.05)) as conn:
        with pytest.raises(psycopg.errors.QueryCanceled):
            await conn.execute("SELECT pg_sleep(60)")


async def test_the_options_of_the_address_win(database_url: str) -> None:
    own = "?application_name=mine&keepalives_idle=99&connect_timeout=9&options=-c%20statement_timeout%3D5s"
    async with open_async_connection(Settings(database_url=database_url + own)) as conn:
        assert await setting(conn, "application_name") == "mine"
        assert await setting(conn, "statement_timeout") == "5s"
        assert await setting(conn, "lock_timeout") == "10s"
        parameters = conn.info.get_parameters()
        assert (parameters["keepalives_idle"], parameters["connect_timeout"]) == ("99", "9")


async def test_a_peer_that_is_silently_gone_is_noticed_within_a_minute(database_url: str) -> None:
    async with open_async_connection(Settings(database_url=database_url)) as conn:
        found = conn.info.get_parameters()
    seconds = int(found["keepalives_idle"]) + int(found["keepalives_count"]) * int(found["keepalives_interval"])
    assert seconds == int(found["tcp_user_timeout"]) / 1000 == 60
    assert found["connect_timeout"] == "5"


async def test_the_pool_makes_the_same_connections(database_url: str) -> None:
    async with open_pool(database_url, database_pool_size=1) as pool, pool.connection() as conn:
        assert conn.autocommit
        assert await setting(conn, "TimeZone") == "UTC"
        assert await setting(conn, "statement_timeout") == "30s"
        assert conn.info.get_parameters()["keepalives_idle"] == "30"


@pytest.mark.parametrize(("is_on", "threshold"), [(True, 5), (False, None)])
async def test_prepared_statements_can_be_turned_off(is_on: bool, threshold: int | None, database_url: str) -> None:
    async with open_async_connection(Settings(database_url=database_url, database_prepared_statements=is_on)) as conn:
        assert conn.prepare_threshold == threshold
        for _ in range(8):
            await conn.execute("SELECT %s::int", [1])
        (count,) = await anext(await conn.execute("SELECT count(*) FROM pg_prepared_statements"))
        assert count == int(is_on)


async def test_times_are_utc_whatever_the_machine_says(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    async with open_async_connection(Settings(database_url=database_url)) as conn:
        (now,) = await anext(await conn.execute("SELECT now()"))
    assert now.utcoffset() == timedelta(0)


async def test_nothing_is_logged_without_echo(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="app.database")
    async with open_async_connection(Settings(database_url=database_url)) as conn:
        await conn.execute("SELECT 1")
    assert [record for record in caplog.records if record.name.startswith("app.")] == []


async def test_echo_logs_each_statement_with_its_time_and_no_values(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="app.database.statements")
    async with open_async_connection(Settings(database_url=database_url, database_echo=True)) as conn:
        caplog.clear()
        await conn.execute("SELECT  %s::text\n AS word", ["hunter2"])
        await conn.cursor().executemany("SELECT %s::text", [["hunter2"], ["hunter2"]])
        await conn.execute("CREATE TEMP TABLE words (word text)")
        async with conn.cursor().copy("COPY words FROM STDIN") as copy:
            await copy.write_row(["hunter2"])
        with pytest.raises(psycopg.errors.DivisionByZero):
            await conn.execute(b"SELECT 1 / 0")
    messages = [record.getMessage() for record in caplog.records]
    assert [message.rpartition(" [")[0] for message in messages] == [
        "SELECT %s::text AS word",
        "SELECT %s::text",
        "CREATE TEMP TABLE words (word text)",
        "COPY words FROM STDIN",
        "SELECT 1 / 0",
    ]
    assert all(message.endswith(" ms]") for message in messages)


async def test_echo_does_not_log_a_password(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    place = urlsplit(database_url)
    password = place.password or "hunter2"
    url = as_user(database_url, place.username or "postgres", password)
    async with open_pool(url, database_echo=True) as pool, pool.connection() as conn:
        await conn.execute("SELECT 1")
    assert password not in caplog.text


@pytest.mark.parametrize(
    "value",
    [
        [{"word": "grün 😀", "start": 0.1, "end": 1e-9}],
        {"null": None, "big": 2**63 - 1, "less": -(2**63)},
        [],
        "null",
    ],
)
async def test_json_comes_back_as_it_was(value: Any, conn: Connection) -> None:
    (found,) = await anext(await conn.execute("SELECT %s::jsonb", [Jsonb(value)]))
    assert found == value


@pytest.mark.parametrize(
    "value",
    [float("nan"), [{"start": float("inf")}], {"a": -float("inf")}, "\ud800", 2**64, object()],
    ids=["nan", "infinity", "minus infinity", "half a surrogate", "beyond 64 bits", "no JSON"],
)
async def test_what_json_cannot_hold_is_refused(value: Any, conn: Connection) -> None:
    with pytest.raises(psycopg.DataError, match="cannot be written as JSON"):
        await conn.execute("SELECT %s::jsonb", [Jsonb(value)])
