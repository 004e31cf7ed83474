"""A PostgreSQL that answers, and answers no: rights that lack, another encoding, a database that takes no changes."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from httpx import AsyncClient
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from app.cli.command_line import main
from app.core.config import Settings, get_settings
from app.database import open_async_connection
from app.database.catalog import OWN_SCHEMAS, PUBLIC_FUNCTIONS, PUBLIC_TABLES
from app.main import create_app
from tests.api.conftest import open_client
from tests.conftest import Databases, as_superuser, as_user
from tests.database.pools import query
from tests.factories import make_transcript, make_video

pytestmark = pytest.mark.usefixtures("patient_health")

NOTHING: tuple[str, ...] = ()
PUBLIC_ONLY = (
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
)
EVERYTHING = (
    *PUBLIC_ONLY,
    *(
        statement.format(schema=schema, role="{role}")
        for schema in OWN_SCHEMAS
        for statement in (
            "GRANT USAGE ON SCHEMA {schema} TO {role}",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
            "GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}",
        )
    ),
)
LACKS = "The role of DATABASE_URL lacks"


class Guest:
    """A role that may connect, and has the rights that a test grants it in its database."""

    def __init__(self, url: str, superuser_url: str) -> None:
        self._superuser_url = as_superuser(url, superuser_url)
        self._name = f"guest_{os.getpid()}"
        self.url = as_user(url, self._name, "pw")
        self.run("CREATE ROLE {role} LOGIN PASSWORD 'pw'")

    def run(self, *statements: str) -> None:
        with psycopg.connect(self._superuser_url, autocommit=True) as conn:
            for statement in statements:
                conn.execute(sql.SQL(statement).format(role=sql.Identifier(self._name)))


@pytest.fixture
def guest(own_database_url: str, superuser_url: str) -> Iterator[Guest]:
    guest = Guest(own_database_url, superuser_url)
    yield guest
    guest.run("DROP OWNED BY {role}", "DROP ROLE {role}")


@pytest.fixture
def ascii_url(databases: Databases) -> Iterator[str]:
    """A database that takes any bytes for text."""
    url = databases.url_of(f"videomoments_test_{os.getpid()}_ascii")
    name = conninfo_to_dict(url)["dbname"]
    with psycopg.connect(databases.create(), autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0".encode())
    yield url
    databases.drop(str(name))


@asynccontextmanager
async def running(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[AsyncClient]:
    settings = Settings(
        log_level="error",
        database_url=database_url,
        redis_url=redis_url,
        data_dir=tmp_path / "data",
        database_pool_size=2,
        database_pool_timeout=5,
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app), open_client(app) as client:
        yield client


@pytest.mark.parametrize(
    ("rights", "schemas", "word", "unavailable"),
    [
        (
            NOTHING,
            "library, pipeline, public, search",
            "disconnected",
            ("/api/videos", "/api/search?q=x", "/api/prompts"),
        ),
        (("REVOKE USAGE ON SCHEMA public FROM PUBLIC",), "library, pipeline, public, search", "disconnected", ()),
        (
            PUBLIC_ONLY,
            "library, pipeline, search",
            "connected",
            ("/api/search?q=x", "/api/videos/talk/transcript", "/api/pipeline/talk/status", "/api/pipeline/active"),
        ),
        ((*EVERYTHING, "REVOKE DELETE ON search.passages FROM {role}"), "search", "connected", ()),
        ((*EVERYTHING, "REVOKE USAGE ON SEQUENCE moments_id_seq FROM {role}"), "public", "connected", ()),
        ((*EVERYTHING, "REVOKE SELECT ON alembic_version FROM {role}"), "public", "connected", ()),
        (
            (*EVERYTHING, "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pipeline FROM PUBLIC"),
            "pipeline",
            "connected",
            (),
        ),
    ],
    ids=["nothing", "closed", "public only", "no delete", "no sequence", "no revision", "no function"],
)
async def test_rights_that_lack_are_503_and_named_by_readiness(
    rights: tuple[str, ...],
    schemas: str,
    word: str,
    unavailable: tuple[str, ...],
    guest: Guest,
    own_database_url: str,
    redis_url: str,
    tmp_path: Path,
) -> None:
    async with open_async_connection(Settings(database_url=own_database_url)) as conn:
        video = await make_video(conn, identifier="talk")
        await make_transcript(conn, video_id=video.id)
    guest.run(*rights)
    async with running(guest.url, redis_url, tmp_path) as client:
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["detail"].startswith(f"{LACKS} rights in {schemas}: grant it USAGE on the schema")
        assert (await client.get("/health")).json()["database"] == word
        for path in unavailable:
            answer = await client.get(path)
            assert (path, answer.status_code, answer.json()["detail"]) == (
                path,
                503,
                f"{LACKS} a right in the database: /health/ready says which",
            )


async def test_the_rights_that_readiness_asks_for_are_enough(
    guest: Guest, own_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    async with open_async_connection(Settings(database_url=own_database_url)) as conn:
        video = await make_video(conn, identifier="talk")
        await make_transcript(conn, video_id=video.id)
    guest.run(*EVERYTHING)
    async with running(guest.url, redis_url, tmp_path) as client:
        assert (await client.get("/health/ready")).status_code == 200
        added = await client.post("/api/videos/talk/moments", json={"start_time": 0, "end_time": 5, "title": "Intro"})
        assert added.status_code == 201
        assert len((await client.get("/api/search?q=intro")).json()["moments"]) == 1
        assert (await client.delete("/api/videos/talk")).status_code == 200


async def test_a_database_of_another_encoding_is_503_with_its_reason(
    ascii_url: str, redis_url: str, tmp_path: Path
) -> None:
    async with running(ascii_url, redis_url, tmp_path) as client:
        for path in ("/health/ready", "/api/videos", "/api/search?q=x", "/api/videos/talk/moments"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert "has the encoding SQL_ASCII and needs UTF8" in answer.json()["detail"]
        assert (await client.get("/health")).json()["database"] == "disconnected"


def said_by(command: str, url: str, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one sentence of a command that cannot work."""
    patch.setenv("DATABASE_URL", url)
    get_settings.cache_clear()
    try:
        assert main(["db", command]) == 1
    finally:
        get_settings.cache_clear()
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    return said.err


@pytest.mark.parametrize("command", ["upgrade", "current", "check", "rebuild-search"])
def test_a_command_on_a_database_of_another_encoding_is_one_sentence(
    command: str, ascii_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "has the encoding SQL_ASCII and needs UTF8" in said_by(command, ascii_url, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("upgrade", "permission denied for table alembic_version"),
        ("current", "permission denied for table alembic_version"),
        ("check", "may not create databases"),
        ("rebuild-search", "permission denied for schema search"),
    ],
)
def test_a_command_of_a_role_without_rights_is_one_sentence(
    command: str, reason: str, guest: Guest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reason in said_by(command, guest.url, monkeypatch, capsys)


@pytest.mark.parametrize("command", ["check", "rebuild-search"])
def test_a_command_on_a_database_that_is_read_only_is_one_sentence(
    command: str, own_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{own_database_url}?options=-c%20default_transaction_read_only%3Don"
    assert said_by(command, url, monkeypatch, capsys).startswith("The database is read-only: cannot execute ")


def test_an_empty_database_that_is_read_only_is_one_sentence(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{databases.create()}?options=-c%20default_transaction_read_only%3Don"
    said = said_by("upgrade", url, monkeypatch, capsys)
    assert said == "The migration stopped: cannot execute CREATE TABLE in a read-only transaction\n"


def test_a_server_that_is_away_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_by("rebuild-search", "postgresql://me:pw@127.0.0.1:1/none", monkeypatch, capsys)
    assert said == "Cannot connect to me@127.0.0.1:1/none: Connection refused\n"


def test_every_schema_and_all_of_the_schema_public_is_looked_at(database_url: str) -> None:
    schemas = query(
        database_url,
        "SELECT array_agg(nspname::text) FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema|public)'",
    )
    tables = query(
        database_url,
        "SELECT array_agg(tablename::text) FROM pg_tables "
        "WHERE schemaname = 'public' AND tablename <> 'alembic_version'",
    )
    functions = query(
        database_url,
        "SELECT array_agg(proname::text) FROM pg_proc "
        "WHERE pronamespace = 'public'::regnamespace AND prorettype <> 'trigger'::regtype "
        "AND oid NOT IN (SELECT objid FROM pg_depend WHERE deptype = 'e')",
    )
    assert set(schemas) == set(OWN_SCHEMAS)
    assert set(tables) == set(PUBLIC_TABLES)
    assert set(functions) == set(PUBLIC_FUNCTIONS)
