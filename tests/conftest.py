"""A real PostgreSQL for the session, a connection that is rolled back for each test, and databases of one's own."""

import gc
import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from alembic import command
from alembic.config import Config
from hypothesis import settings as hypothesis_settings
from psycopg import AsyncCursor, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from app.core.config import Settings, get_settings
from app.database import Connection, open_async_connection
from app.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.embedded.servers import QUICK
from tests.google_emulator import Emulator, write_credentials
from tests.media.talks import BREAD, MARS, TOPICS, Talk, make_talk
from tests.serving import free_port

_ROOT = Path(__file__).resolve().parents[1]
# A test server may lose its data, so it need not wait for the disk.
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "16MB"}
_MEMORY = Path("/dev/shm")  # noqa: S108 (only a folder of pytest's own is made in it)
_MEMORY_BYTES = 6 << 30  # a run takes 2 GB
_numbers = count()
_superuser_urls: dict[str, str] = {}

# A time limit for each example fails on a busy machine.
hypothesis_settings.register_profile("videomoments", deadline=None)
hypothesis_settings.load_profile("videomoments")


def pytest_configure() -> None:
    """Keep the folders of the tests in memory where there is enough: a database is copied in a tenth of the time."""
    gc.disable()  # while the tests are collected, which takes a third longer with it
    if not _MEMORY.is_dir() or not os.access(_MEMORY, os.W_OK) or os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:
        return
    if shutil.disk_usage(_MEMORY).free > _MEMORY_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


# What takes long comes first, so that no process is left alone with it at the end: an outage of 90 seconds, then the
# folders whose tests start servers, in the order of the seconds that they take.
_LONG_TESTS = (
    "faults/test_fleets",
    "end_to_end",
    "faults",
    "cli",
    "api/test_requests_at_once",
    "api/test_schemathesis",
    "ai/local",
    "worker",
    "embedded",
    "browser",
    "importer",
    "api",
    "media",
    "pipeline",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place_in_order)


def _place_in_order(item: pytest.Item) -> int:
    path = item.path.relative_to(_ROOT / "tests").as_posix()
    return next((place for place, start in enumerate(_LONG_TESTS) if path.startswith(start)), len(_LONG_TESTS))


def pytest_collection_finish() -> None:
    """Collect garbage again, but not among the tests themselves."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """Settings of the machine, or of a .env file, are not those of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in Settings.model_fields:
            patch.delenv(name.upper(), raising=False)
        patch.setitem(Settings.model_config, "env_file", None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _obey_signals() -> None:
    """A job of a script's background ignores Ctrl-C, one of nohup a closed terminal, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _share_certificates() -> Iterator[None]:
    """Read the certificates of the authorities once, which took 20 ms for each client, and each look for a server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", cache(httpx.create_ssl_context))
        yield


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """What a test, or an application in it, sets for the logs holds for no other test."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    yield
    root.setLevel(level)
    for handler in {*root.handlers} - {*handlers}:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server where databases may be created: `TEST_DATABASE_URL` or an embedded one."""
    with ExitStack() as stack:
        url = os.environ.get("TEST_DATABASE_URL")
        if url is None:
            folder = tmp_path_factory.mktemp("servers") / "postgres"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("app.embedded.postgres._SCRAM_ITERATIONS", 1)  # thousands of logins, 2 ms less for each
                server = stack.enter_context(EmbeddedPostgres(folder, free_port(), _FAST, superuser=True))
            url = server.url
            _superuser_urls[url] = server.superuser_url
        yield url


@pytest.fixture(scope="session")
def superuser_url(postgres_url: str) -> str:
    """The same for a superuser, for what the application's role may not: `TEST_DATABASE_URL` has to name one."""
    return _find_superuser_url(postgres_url)


def _find_superuser_url(server_url: str) -> str:
    return _superuser_urls.get(server_url, server_url)


def as_superuser(url: str, superuser_url: str) -> str:
    """The address of the same database for a superuser."""
    return urlsplit(superuser_url)._replace(path=urlsplit(url).path).geturl()


def as_user(url: str, name: str, password: str) -> str:
    """The same address for another user."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{name}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()


def without_password(url: str) -> str:
    """`user@host:port/database`, as messages name the database of an address."""
    parts = urlsplit(url)
    return f"{parts.username}@{parts.netloc.rpartition('@')[2]}{parts.path}"


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis-protocol server whose database may be flushed: `TEST_REDIS_URL` or an embedded one."""
    with ExitStack() as stack:
        url = os.environ.get("TEST_REDIS_URL")
        if url is None:
            url = stack.enter_context(EmbeddedValkey(tmp_path_factory.mktemp("servers") / "valkey")).url
        else:
            url = _with_own_database(url)
        yield url


def _with_own_database(url: str) -> str:
    """Return the address for one of the processes that run the tests at the same time and flush their database."""
    parts = urlsplit(url)
    number = int(parts.path.strip("/") or 0) + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return parts._replace(path=f"/{number}").geturl()


class Databases:
    """Makes databases on the test server and drops them at the end."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._names: set[str] = set()

    def create(self, template: str | None = None) -> str:
        """Create a database, empty or a copy of the database `template`, and return its address."""
        name = f"videomoments_test_{os.getpid()}_{next(_numbers)}"
        source = conninfo_to_dict(template)["dbname"] if template else "template0"
        # Copied as files, hundreds of databases leave no gigabytes in the write-ahead log.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            sql.Identifier(name), sql.Identifier(str(source))
        )
        self._run(statement, self._server_url)
        self._names.add(name)
        return self.url_of(name)

    def url_of(self, name: str) -> str:
        return urlsplit(self._server_url)._replace(path=f"/{name}").geturl()

    def drop(self, name: str) -> None:
        """Drop a database with its sessions, which only a superuser may where autovacuum has one."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        self._run(statement, _find_superuser_url(self._server_url))
        self._names.discard(name)

    def drop_all(self) -> None:
        for name in [*self._names]:
            self.drop(name)

    def _run(self, statement: sql.Composed, server_url: str) -> None:
        with psycopg.connect(make_conninfo(server_url), autocommit=True) as conn:
            conn.execute(statement)


@pytest.fixture(scope="session")
def databases(postgres_url: str) -> Iterator[Databases]:
    databases = Databases(postgres_url)
    yield databases
    if "TEST_DATABASE_URL" in os.environ:  # an embedded server is thrown away with all it holds
        databases.drop_all()


def migrate(url: str, revision: str = "head") -> None:
    """Run `alembic upgrade` on the database at `url`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        get_settings.cache_clear()
        command.upgrade(Config(_ROOT / "alembic.ini"), revision)
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def template_url(databases: Databases) -> str:
    """A migrated, empty database that nobody connects to: copies of it are made in milliseconds."""
    url = databases.create()
    migrate(url)
    return url


@pytest.fixture(scope="session")
def database_url(databases: Databases, template_url: str) -> str:
    """The migrated database in which every test is rolled back."""
    return databases.create(template_url)


@pytest.fixture
def own_database_url(databases: Databases, template_url: str) -> Iterator[str]:
    """A migrated database of the test's own, for what a rollback cannot show."""
    url = databases.create(template_url)
    yield url
    databases.drop(str(conninfo_to_dict(url)["dbname"]))  # hundreds of copies would fill a small disk


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A Redis-protocol server of the test's own, to stop and to start."""
    with EmbeddedValkey(tmp_path / "valkey", free_port()) as valkey:
        yield valkey


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of the test's own, to stop and to start."""
    with EmbeddedPostgres(tmp_path / "postgres", free_port(), QUICK) as postgres:
        yield postgres


@pytest.fixture(scope="session")
def database_settings(database_url: str) -> Settings:
    return Settings(database_url=database_url)


@pytest.fixture
async def conn(database_settings: Settings) -> AsyncIterator[Connection]:
    """A connection inside a transaction that is rolled back; it counts its statements for `statements`."""
    async with open_async_connection(database_settings) as conn:
        conn.cursor_factory = _CountingCursor
        async with conn.transaction(force_rollback=True):
            yield conn


@pytest.fixture
def patient_health(monkeypatch: pytest.MonkeyPatch) -> None:
    """Health checks that wait for a server that answers late because the machine stood still."""
    monkeypatch.setattr("app.services.health._CHECK_TIMEOUT", 60.0)


class Statements:
    """Counts the statements that run on a connection inside a `with` block: `with statements as counted: …`."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "Statements":
        self.count = 0
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return self.count == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self.count} statements"


_counter = Statements()


class _CountingCursor(AsyncCursor[TupleRow]):
    async def execute(self, *args: Any, **kwargs: Any) -> "_CountingCursor":
        _counter.count += 1
        await super().execute(*args, **kwargs)
        return self

    def copy(self, *args: Any, **kwargs: Any) -> Any:
        _counter.count += 1
        return super().copy(*args, **kwargs)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A Google Cloud Storage on loopback."""
    with Emulator(tmp_path_factory.mktemp("buckets")) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a throw-away key that signs."""
    return write_credentials(tmp_path_factory.mktemp("credentials") / "key.json")


@pytest.fixture
def bucket(emulator: Emulator, credentials: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket; what the test opens finds the emulator and the credentials."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials))
    return emulator.create_bucket()


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    """A video of 100 seconds about four subjects."""
    return make_talk(tmp_path_factory.mktemp("talks") / "talk.mp4", TOPICS)


@pytest.fixture(scope="session")
def short_talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    """A video of half a minute about two subjects."""
    return make_talk(tmp_path_factory.mktemp("talks") / "short-talk.mp4", (BREAD[:4], MARS[:4]))


@pytest.fixture
def statements() -> Statements:
    """Count statements: `with statements: …` and then `assert statements == 1`."""
    return _counter
