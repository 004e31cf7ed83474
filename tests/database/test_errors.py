"""What PostgreSQL reports and what the project calls it."""

import psycopg
import pytest
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from app.core.errors import Conflict, DatabaseUnavailable, InvalidInput, NotFound
from app.database import Connection
from app.database.errors import _VIOLATIONS, describe_database_failure, make_connection_error, translate_database_error
from tests.conftest import as_superuser

_PLACE = {"user": "me", "password": "hunter2", "host": "db.example", "port": "5433", "dbname": "videos"}


async def test_every_constraint_has_its_error(conn: Connection) -> None:
    cursor = await conn.execute(
        """
        SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'u')
        UNION SELECT indexrelid::regclass::text FROM pg_index
        WHERE indisunique AND NOT indisprimary AND indpred IS NOT NULL AND indrelid::regclass::text NOT LIKE 'pg_%'
        """
    )
    assert {name for (name,) in await cursor.fetchall()} == set(_VIOLATIONS)


async def test_a_violation_is_reported_by_its_constraint(conn: Connection) -> None:
    statement = b"INSERT INTO videos (identifier, cloud_url) VALUES ('talk', 'file:///x')"
    await conn.execute(statement)
    with pytest.raises(psycopg.errors.UniqueViolation) as raised:
        await conn.execute(statement)
    found = translate_database_error(raised.value)
    assert (type(found), str(found)) == (Conflict, "A video with this id exists already")


async def test_a_missing_parent_is_not_found(conn: Connection) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation) as raised:
        await conn.execute(
            "INSERT INTO moments (identifier, video_id, start_time, end_time, title) VALUES ('a', 0, 1, 2, 't')"
        )
    assert isinstance(translate_database_error(raised.value), NotFound)


async def test_a_value_that_cannot_be_stored_is_invalid_input(conn: Connection) -> None:
    for statement, value in (
        ("SELECT %s::text", "\0"),
        ("SELECT %s::varchar(3)::text::int", "x"),
        ("SELECT %s::text::int", str(2**31)),
        ("SELECT %s::jsonb", '"\\u0000"'),
    ):
        with pytest.raises(psycopg.DataError) as raised:
            async with conn.transaction():
                await conn.execute(statement, [value])
        assert isinstance(translate_database_error(raised.value), InvalidInput)


async def test_a_text_with_more_words_than_search_can_hold_is_invalid_input(conn: Connection) -> None:
    text = " ".join(f"word{number:06}" for number in range(90_000))
    with pytest.raises(psycopg.errors.ProgramLimitExceeded) as raised:
        await conn.execute("SELECT to_tsvector('english', %s)", [text])
    found = translate_database_error(raised.value)
    assert (type(found), str(found)) == (InvalidInput, "A text has more words than search can hold")


@pytest.mark.parametrize(
    "error",
    [
        PoolTimeout(),
        TooManyRequests(),
        PoolClosed(),
        psycopg.OperationalError("server closed the connection unexpectedly"),
        *(
            psycopg.errors.lookup(state)()
            for state in (
                "08006",
                "53300",
                "57014",
                "57P01",
                "57P03",
                "25P03",
                "25006",
                "42501",
                "26000",
                "40001",
                "40P01",
                "55P03",
            )
        ),
        *(psycopg.errors.lookup(state)() for state in ("42P01", "42703", "42883", "3F000")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_work_later_is_an_unavailable_database(error: psycopg.Error) -> None:
    assert isinstance(translate_database_error(error), DatabaseUnavailable)


@pytest.mark.parametrize("state", ["42601", "0A000"])
def test_a_defect_of_the_code_has_no_other_name(state: str) -> None:
    assert translate_database_error(psycopg.errors.lookup(state)()) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            'connection to server at "127.0.0.1", port 1 failed: Connection refused\n\tIs the server running on that '
            "host and accepting TCP/IP connections?",
            "Connection refused",
        ),
        (
            'connection failed: connection to server at "10.0.0.1", port 5432 failed: FATAL:  password authentication '
            'failed for user "me"',
            'password authentication failed for user "me"',
        ),
        (
            'connection to server at "::1", port 1 failed: FATAL:  database "videos" does not exist',
            'database "videos" does not exist; create it with `python -m app db create`',
        ),
        ("connection timeout expired", "connection timeout expired"),
        (
            'invalid value for parameter "lock_timeout": "x"\nHINT:  Valid units for this parameter are "us" and "ms".',
            'invalid value for parameter "lock_timeout": "x"',
        ),
        (
            'connection to server at "::1", port 1 failed: FATAL:  no such user\nDETAIL:  It is gone.\nHINT:  Ask.',
            "no such user",
        ),
    ],
)
def test_a_connection_that_cannot_be_opened_is_one_sentence(text: str, reason: str) -> None:
    message = str(make_connection_error(psycopg.OperationalError(text), _PLACE))
    assert message == f"Cannot connect to me@db.example:5433/videos: {reason}"


async def test_the_reason_of_a_refused_connection_is_postgresqls_own(database_url: str) -> None:
    with psycopg.connect(database_url) as conn, pytest.raises(psycopg.Error) as raised:
        conn.execute("SET lock_timeout = '1x'")
    assert "HINT" in str(raised.value)
    message = str(make_connection_error(raised.value, _PLACE))
    assert message == ('Cannot connect to me@db.example:5433/videos: invalid value for parameter "lock_timeout": "1x"')


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        (b"SET ROLE pg_monitor; TABLE videos", "PostgreSQL refuses this: permission denied for table videos"),
        (
            b"SET TRANSACTION READ ONLY; DELETE FROM videos",
            "The database is read-only: cannot execute DELETE in a read-only transaction",
        ),
        (
            b"SET statement_timeout = 1; SELECT pg_sleep(9)",
            "The database is not available: canceling statement due to statement timeout",
        ),
        (b"TABLE nothing", "The database is not migrated: run `alembic upgrade head`"),
        (b"SELECT FROM WHERE", None),
    ],
)
def test_the_reason_is_reported_to_an_operator(
    statement: bytes, sentence: str | None, database_url: str, superuser_url: str
) -> None:
    with psycopg.connect(as_superuser(database_url, superuser_url)) as conn, pytest.raises(psycopg.Error) as raised:
        conn.execute(statement)
    assert describe_database_failure(raised.value, {}) == sentence
