"""Who may use the embedded servers: their user, as a role without rights over the machine."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from app.core.config import Settings, get_settings
from app.database.catalog import list_schema_differences
from app.database.migrations import create_database
from app.embedded import EmbeddedPostgres, EmbeddedValkey
from app.embedded.binaries import POSTGRES, find_server_program
from app.embedded.process import choose_server_account, launch_server_process
from tests.conftest import migrate
from tests.serving import free_port

from .servers import QUICK, each_kind, linux_only, query, root_only
from .test_server import make_server

# What a database of an earlier version may hold beside this project's tables, all of it the superuser's.
_OBJECTS = """
    CREATE SCHEMA notes;
    CREATE TYPE notes.mood AS ENUM ('good');
    CREATE DOMAIN notes.score AS int CHECK (VALUE > 0);
    CREATE TABLE notes.words (id serial, number int GENERATED ALWAYS AS IDENTITY, word text, mood notes.mood);
    CREATE TABLE notes.parted (day int) PARTITION BY LIST (day);
    CREATE TABLE notes.first_day PARTITION OF notes.parted FOR VALUES IN (1);
    CREATE STATISTICS notes.both ON id, word FROM notes.words;
    CREATE SEQUENCE notes.free;
    CREATE VIEW notes.seen AS SELECT word FROM notes.words;
    CREATE MATERIALIZED VIEW notes.kept AS SELECT word FROM notes.words;
    CREATE FUNCTION notes.twice(x int) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 2 * x';
    CREATE PROCEDURE notes.nothing() LANGUAGE sql AS '';
    CREATE AGGREGATE notes.total(int) (SFUNC = int4pl, STYPE = int);
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
    INSERT INTO notes.words (word) VALUES ('kept');
    SELECT lo_create(4711);
"""
# `public` is that of pg_database_owner in every database.
_NOT_OURS = """
    SELECT relname::text FROM pg_class WHERE oid >= 16384 AND relowner = 10 AND relkind <> 't'
    UNION ALL SELECT proname FROM pg_proc WHERE oid >= 16384 AND proowner = 10 AND NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e')
    UNION ALL SELECT nspname FROM pg_namespace WHERE oid >= 16384 AND nspowner = 10 AND nspname NOT LIKE 'pg\\_%'
    UNION ALL SELECT stxname FROM pg_statistic_ext WHERE stxowner = 10
    UNION ALL SELECT oid::text FROM pg_largeobject_metadata WHERE lomowner = 10
    UNION ALL SELECT datname FROM pg_database WHERE NOT datistemplate AND datdba = 10
"""
# Lets nobody else in, even where the password is known to him: exit status 0 where he got through.
_STRANGER = """
import os, socket, sys
os.setgroups([]), os.setgid(4242), os.setuid(4242)
for path in sys.argv[1:]:
    try:
        if path.endswith((".sock", ".5432")):
            socket.socket(socket.AF_UNIX).connect(path)
        else:
            open(path).read() if not os.path.isdir(path) else os.listdir(path)
    except OSError:
        continue
    print(path)
"""


def make_old_folder(folder: Path) -> None:
    """A folder as versions before this one made it: everybody on the machine is the superuser."""
    initdb = find_server_program(POSTGRES).with_name("initdb")
    folder.mkdir(mode=0o700)
    place = "/proc/self/cwd" if sys.platform == "linux" else str(folder)
    command = [str(initdb), "-D", place, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"]
    with (folder.with_name("lock")).open("wb") as lock:
        process = launch_server_process(
            command,
            folder=folder,
            account=choose_server_account(folder),
            log=folder.with_name("initdb.log"),
            lock=lock.fileno(),
            death_signal=signal.SIGKILL,
        )
    assert process.wait() == 0


@pytest.fixture
def old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the database of `make run`, migrated and filled, and another one."""
    folder = tmp_path / "postgres"
    make_old_folder(folder)
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedPostgres, "_has_current_pg_hba_conf", lambda *_: True)
        with EmbeddedPostgres(folder, free_port(), QUICK) as old:
            place = f"postgresql://postgres@127.0.0.1:{old.port}"
            create_database(Settings(database_url=f"{place}/videomoments"))
            migrate(f"{place}/videomoments")
            query(f"{place}/postgres", 'CREATE DATABASE "Ünusual ""name"""')
            for name in ("videomoments", "%C3%9Cnusual%20%22name%22"):
                with psycopg.connect(f"{place}/{name}") as conn:
                    conn.execute(_OBJECTS.encode())
    get_settings.cache_clear()
    return folder


def kept_in(postgres: EmbeddedPostgres, name: str) -> list[tuple[object, ...]]:
    url = postgres.database_url(name)
    assert query(url, _NOT_OURS) == []
    query(url, "ALTER TABLE notes.words ADD more int; INSERT INTO notes.words (word) VALUES ('new')")
    query(url, "REFRESH MATERIALIZED VIEW notes.kept; DROP FUNCTION notes.twice")
    extensions = {name for (name,) in query(url, "SELECT extname FROM pg_extension")}
    assert {"pg_trgm", "plpgsql"} <= extensions <= {"pg_trgm", "plpgsql", "vector"}
    return query(url, "SELECT word FROM notes.seen ORDER BY word")


def test_a_folder_of_an_earlier_version_is_given_to_the_role_and_keeps_everything(old_folder: Path) -> None:
    with EmbeddedPostgres(old_folder, settings=QUICK) as postgres:
        assert list_schema_differences(Settings(database_url=postgres.database_url("videomoments"))) == []
        for name in ("videomoments", 'Ünusual "name"'):
            assert kept_in(postgres, name) == [("kept",), ("new",)]
        migrate(postgres.database_url("videomoments"))
    assert "trust" not in (old_folder / "pg_hba.conf").read_text()
    with EmbeddedPostgres(old_folder, settings=QUICK) as postgres:
        assert query(postgres.database_url("videomoments"), "SELECT count(*) FROM notes.words") == [(2,)]


_KILLED = """
import os, signal, sys
from pathlib import Path
from app.embedded import EmbeddedPostgres
calls, run = [], EmbeddedPostgres._run_to_end
def run_and_die(self, *arguments):
    run(self, *arguments)
    calls.append(arguments)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
EmbeddedPostgres._run_to_end = run_and_die
EmbeddedPostgres(Path(sys.argv[1])).start()
"""


@linux_only
def test_a_change_that_was_killed_at_any_step_is_made_good_by_the_next_start(old_folder: Path) -> None:
    for step in ("1", "2", "3"):
        killed = subprocess.run([sys.executable, "-c", _KILLED, str(old_folder), step], env=_environment())
        assert killed.returncode == -signal.SIGKILL
    with EmbeddedPostgres(old_folder, settings=QUICK, wait_seconds=60) as postgres:
        assert kept_in(postgres, "videomoments") == [("kept",), ("new",)]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.parametrize("lost", ["removed", "open to others"])
@each_kind
def test_a_password_that_was_lost_or_may_be_known_is_replaced(kind: str, lost: str, tmp_path: Path) -> None:
    with make_server(kind, tmp_path / "data") as server:
        before = server.url
    password = tmp_path / "data.password"
    password.unlink() if lost == "removed" else password.chmod(0o644)
    with make_server(kind, tmp_path / "data") as server:
        assert server.url != before
        connect(server.url)
        with pytest.raises((psycopg.OperationalError, redis.AuthenticationError)):
            connect(before)
    assert stat.S_IMODE(password.stat().st_mode) == 0o600


def connect(url: str) -> None:
    if url.startswith("postgres"):
        assert query(url, "SELECT 1") == [(1,)]
    else:
        with redis.Redis.from_url(url) as client:
            assert client.ping()


@each_kind
@pytest.mark.parametrize("has_port", [False, True])
def test_without_the_password_nobody_gets_in(kind: str, has_port: bool, tmp_path: Path) -> None:
    with make_server(kind, tmp_path / "data", free_port() if has_port else None) as server:
        password = (tmp_path / "data.password").read_text()
        for wrong in (server.url.replace(password, "0" * 64), server.url.replace(f":{password}@", "@")):
            with pytest.raises((psycopg.OperationalError, redis.AuthenticationError)):
                connect(wrong)
        if kind == "postgres":
            with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
                connect(server.url.replace("videomoments:", "postgres:"))


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY (SELECT 1) TO '/tmp/word'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "SELECT lo_import('/etc/passwd')",
        "ALTER SYSTEM SET archive_command = 'true'",
        "CREATE EXTENSION file_fdw",
        "CREATE ROLE other SUPERUSER",
        "ALTER ROLE videomoments SUPERUSER",
        "GRANT pg_execute_server_program TO videomoments",
        "SET ROLE postgres",
        "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'x', 'y'",
    ],
)
def test_the_role_of_the_application_runs_and_reads_nothing_on_the_machine(
    statement: str, plain_postgres: EmbeddedPostgres
) -> None:
    with (
        psycopg.connect(plain_postgres.url, autocommit=True) as conn,
        pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported)),
    ):
        conn.execute(statement.encode())


@pytest.fixture(scope="module")
def plain_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("plain") / "postgres", settings=QUICK) as postgres:
        yield postgres


def test_the_user_of_the_application_administers_no_valkey(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey, redis.Redis.from_url(valkey.url) as client:
        for command in (
            "CONFIG GET dir",
            "DEBUG RELOAD",
            "REPLICAOF 127.0.0.1 1",
            "SLAVEOF 127.0.0.1 1",
            "MODULE LOAD /tmp/x.so",
            "MIGRATE 127.0.0.1 1 key 0 1",
            "SHUTDOWN",
            "ACL LIST",
            "MONITOR",
            "SAVE",
            "FAILOVER",
        ):
            with pytest.raises(redis.ResponseError):
                client.execute_command(*command.split())


@root_only
@linux_only
def test_another_user_of_the_machine_reaches_no_socket_and_no_file(tmp_path: Path) -> None:
    with (
        EmbeddedPostgres(tmp_path / "postgres", settings=QUICK) as postgres,
        EmbeddedValkey(tmp_path / "valkey") as valkey,
    ):
        for folder in [*tmp_path.parents][:-2]:
            folder.chmod(folder.stat().st_mode | 0o011)  # only what the servers close themselves is tried
        tmp_path.chmod(0o755)
        assert postgres.socket_path is not None
        assert valkey.socket_path is not None
        files = [postgres.socket_path, valkey.socket_path, postgres.data_dir, valkey.data_dir]
        beside = [path for path in tmp_path.iterdir() if path.is_file()]
        assert len(beside) >= 6
        paths = [str(path) for path in (*files, *beside)]
        tried = subprocess.run([sys.executable, "-c", _STRANGER, *paths], capture_output=True, text=True, check=True)
        assert tried.stdout == ""
        for process in (postgres.pid, valkey.pid):
            words = Path(f"/proc/{process}/cmdline").read_bytes() + Path(f"/proc/{process}/environ").read_bytes()
            assert (tmp_path / "postgres.password").read_bytes() not in words
            assert (tmp_path / "valkey.password").read_bytes() not in words
            assert not set(_inodes_of(process)) & set(_listening())


def _inodes_of(process: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        if (target := os.readlink(descriptor)).startswith("socket:["):
            yield target[8:-1]


def _listening() -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                yield words[9]
