"""The comparison of a database with db/schema.sql: what it finds, in which words, and what it leaves behind."""

from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest

from app.core.config import Settings
from app.core.errors import ConfigurationError, DatabaseUnavailable
from app.database import catalog
from app.database.catalog import describe_catalog_differences, list_schema_differences, read_catalog
from tests.conftest import Databases, as_superuser, as_user
from tests.database.pools import query


def check(url: str) -> list[str]:
    return list_schema_differences(Settings(database_url=url))


def differences_after(url: str, statement: LiteralString) -> list[str]:
    """Return how a migrated database differs from itself once the statement has run; it is rolled back."""
    with psycopg.connect(url) as conn:
        before = read_catalog(conn)
        conn.execute(statement)
        after = read_catalog(conn)
        conn.rollback()
    return describe_catalog_differences(after, before)


def change(url: str, *statements: LiteralString) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement)


def scratch_databases(url: str) -> int:
    return int(query(url, r"SELECT count(*) FROM pg_database WHERE datname LIKE 'videomoments\_check\_%'"))


def test_a_migrated_database_has_no_difference(own_database_url: str) -> None:
    assert check(own_database_url) == []


def test_an_empty_database_lacks_everything(databases: Databases) -> None:
    lines = check(databases.create())
    assert all(line.endswith(" is missing") for line in lines)
    assert {
        "table moments is missing",
        "schema search is missing",
        "function search.follow_transcript() is missing",
    } < set(lines)


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        ("CREATE INDEX idx_hand_made ON moments (title)", "index idx_hand_made on moments is not in the schema"),
        ("DROP INDEX idx_moments_score", "index idx_moments_score on moments is missing"),
        (
            "ALTER TABLE moments DROP CONSTRAINT moments_score_check",
            "constraint moments_score_check on moments is missing",
        ),
        (
            "ALTER TABLE clips DROP CONSTRAINT clips_times_check, ADD CONSTRAINT clips_times_check "
            "CHECK (end_time > start_time) NOT VALID",
            "constraint clips_times_check on clips is CHECK ((end_time > start_time)) NOT VALID, "
            "the schema has CHECK ((end_time > start_time))",
        ),
        (
            "ALTER TABLE videos ALTER resolution TYPE varchar(100)",
            "column videos.resolution is varchar(100), the schema has varchar(20)",
        ),
        (
            'ALTER TABLE videos ALTER resolution TYPE varchar(20) COLLATE "C"',
            'column videos.resolution is varchar(20) collate "C", the schema has varchar(20)',
        ),
        (
            "ALTER TABLE clips ALTER cloud_url DROP NOT NULL",
            "column clips.cloud_url is text, the schema has text not null",
        ),
        (
            "ALTER TABLE clips ALTER padding_left SET DEFAULT 1",
            "column clips.padding_left is double precision not null default 1, "
            "the schema has double precision not null default 0",
        ),
        ("ALTER TABLE videos ADD note text", "column videos.note is not in the schema"),
        ("CREATE VIEW titles AS SELECT title FROM videos", "view titles is not in the schema"),
        ("ALTER TABLE search.words SET UNLOGGED", "table search.words is unlogged, the schema has plain"),
        ("DROP TRIGGER transcripts_follow ON transcripts", "trigger transcripts_follow on transcripts is missing"),
        ("CREATE VIEW search.names AS SELECT title FROM videos", "view search.names is not in the schema"),
        ("CREATE SEQUENCE numbers", "sequence numbers is not in the schema"),
        (
            "CREATE RULE keep AS ON DELETE TO videos DO INSTEAD NOTHING",
            "rule keep on videos is not in the schema",
        ),
        (
            "CREATE POLICY mine ON videos USING (title = current_user)",
            "policy mine on videos is not in the schema",
        ),
        (
            "ALTER TABLE videos FORCE ROW LEVEL SECURITY",
            "table videos is forced on its owner, the schema has plain",
        ),
        ("CREATE TYPE mood AS ENUM ('sad', 'ok')", "enum mood is not in the schema"),
        ("CREATE DOMAIN search.score AS int CHECK (VALUE > 0)", "domain search.score is not in the schema"),
        ("CREATE TYPE pair AS (a int, b int)", "type pair is not in the schema"),
        ("CREATE FUNCTION helper() RETURNS int LANGUAGE sql RETURN 1", "function helper() is not in the schema"),
    ],
)
def test_a_difference_is_one_line(statement: LiteralString, line: str, database_url: str) -> None:
    assert differences_after(database_url, statement) == [line]


def test_what_rules_policies_and_types_say_is_compared(own_database_url: str) -> None:
    change(
        own_database_url,
        "CREATE RULE keep AS ON DELETE TO videos DO INSTEAD NOTHING",
        "CREATE POLICY mine ON videos FOR UPDATE TO postgres USING (id > 1) WITH CHECK (id > 2)",
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE DOMAIN score AS int NOT NULL DEFAULT 1 CHECK (VALUE > 0)",
    )
    with psycopg.connect(own_database_url) as conn:
        found = read_catalog(conn)
    assert found["rule keep on videos"].endswith("ON DELETE TO public.videos DO INSTEAD NOTHING;")
    assert found["policy mine on videos"] == "permissive update to postgres using (id > 1) check (id > 2)"
    assert found["enum mood"] == "sad, ok"
    assert found["domain score"] == "integer not null default 1 CHECK ((VALUE > 0))"


def test_a_disabled_trigger_is_a_difference(database_url: str) -> None:
    (line,) = differences_after(database_url, "ALTER TABLE moments DISABLE TRIGGER moments_set_updated_at")
    assert line.startswith("trigger moments_set_updated_at on moments is ")
    assert " (disabled), the schema has " in line


def test_an_index_whose_build_failed_is_a_difference(own_database_url: str) -> None:
    change(
        own_database_url,
        "INSERT INTO videos (identifier, cloud_url) VALUES ('a', 'x'), ('b', 'x')",
        "DROP INDEX idx_videos_created_at_id",
    )
    with pytest.raises(psycopg.errors.UniqueViolation):
        change(own_database_url, "CREATE UNIQUE INDEX CONCURRENTLY idx_videos_created_at_id ON videos (cloud_url)")
    (line,) = check(own_database_url)
    assert "(invalid)" in line


def test_a_function_may_be_laid_out_differently(database_url: str) -> None:
    definition = query(database_url, "SELECT pg_get_functiondef('search.follow_transcript()'::regprocedure)")
    assert differences_after(database_url, definition.replace("\n", "\n\n   ")) == []


def test_what_an_extension_brings_is_no_difference(database_url: str) -> None:
    assert differences_after(database_url, "CREATE EXTENSION hstore") == []


def test_differences_come_in_the_order_of_their_names() -> None:
    assert describe_catalog_differences({"b": "1", "c": ""}, {"a": "", "b": "2"}) == [
        "a is missing",
        "b is 1, the schema has 2",
        "c is not in the schema",
    ]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_the_scratch_database_is_dropped_whatever_happens(
    interruption: type[BaseException], own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(conn: object) -> None:
        assert scratch_databases(own_database_url) == 1
        raise interruption

    monkeypatch.setattr(catalog, "create_schema", interrupt)
    with pytest.raises(interruption):
        check(own_database_url)
    assert scratch_databases(own_database_url) == 0


@pytest.fixture
def plain_user(own_database_url: str, superuser_url: str) -> Iterator[str]:
    """A user who may not create databases."""
    url = as_superuser(own_database_url, superuser_url)
    change(url, "CREATE USER videomoments_plain PASSWORD 'pw'", "GRANT pg_read_all_data TO videomoments_plain")
    yield "videomoments_plain"
    change(url, "DROP OWNED BY videomoments_plain", "DROP USER videomoments_plain")


def test_a_user_who_may_not_create_databases_gets_one_sentence(plain_user: str, own_database_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"scratch database, and videomoments_plain may not create databases$"):
        check(as_user(own_database_url, plain_user, "pw"))


def test_a_database_that_does_not_exist_is_one_sentence(own_database_url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match=r'^Cannot connect to .*: database ".*_no" does not exist; create it'):
        check(own_database_url + "_no")
