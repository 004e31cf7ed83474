"""The embedded PostgreSQL."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from app.embedded import EmbeddedError, EmbeddedPostgres
from app.embedded.binaries import POSTGRES, find_server_program
from tests.serving import free_port

from .servers import QUICK, is_alive, kill_server, linux_only, query, read, spawn_parent, within, write


def make_postgres(folder: Path, **settings: str) -> EmbeddedPostgres:
    return EmbeddedPostgres(folder, settings={**QUICK, **settings}, wait_seconds=60)


def test_settings_reach_the_server(tmp_path: Path) -> None:
    with make_postgres(tmp_path / "data", work_mem="5MB") as postgres:
        assert query(postgres.url, "show work_mem") == [("5MB",)]


def test_a_setting_the_server_refuses_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r'did not start: FATAL:.*"no_such_option"'):
        make_postgres(tmp_path / "data", no_such_option="1").start()


def test_the_server_speaks_utf8_and_listens_on_a_socket_only(tmp_path: Path) -> None:
    with make_postgres(tmp_path / "data") as postgres:
        assert query(postgres.url, "show server_encoding") == [("UTF8",)]
        assert query(postgres.url, "show listen_addresses") == [("",)]
        assert query(postgres.url, "show unix_socket_permissions") == [("0700",)]
    with EmbeddedPostgres(tmp_path / "data", free_port(), QUICK, superuser=True) as postgres:
        assert query(postgres.url, "show listen_addresses") == [("127.0.0.1",)]
        assert query(postgres.superuser_url, "show unix_socket_directories") == [("",)]


def test_words_are_sorted_and_folded_alike_on_every_platform(tmp_path: Path) -> None:
    with make_postgres(tmp_path / "data") as postgres:
        locale = "select datlocprovider, datlocale, datcollate, datctype from pg_database where datname = 'template0'"
        assert query(postgres.url, locale) == [("b", "C.UTF-8", "C", "C")]
        assert query(postgres.url, "select lower('ÄÉ'), upper('äé'), 'Ä' ~* '^ä$'") == [("äé", "ÄÉ", True)]
        assert query(postgres.url, "select * from unnest(array['ä', 'b', 'Z', '日']) word order by word") == [
            ("Z",),
            ("b",),
            ("ä",),
            ("日",),
        ]
        assert query(postgres.url, "show default_text_search_config") == [("pg_catalog.english",)]
        words = "select to_tsvector('english', 'Ärzte Größe talks')::text"
        assert query(postgres.url, words) == [("'größe':2 'talk':3 'ärzte':1",)]


def test_a_user_without_a_name_is_shown_both_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(EmbeddedError, match=r"user 4242, who has no entry .* DATABASE_URL and REDIS_URL"):
        make_postgres(tmp_path / "data").start()


@pytest.mark.parametrize("name", ["videomoments", "a/b ü?"])
def test_another_database_has_a_url(name: str, tmp_path: Path) -> None:
    with make_postgres(tmp_path / "data") as postgres:
        with psycopg.connect(postgres.url, autocommit=True) as conn:
            conn.execute(psycopg.sql.SQL("create database {}").format(psycopg.sql.Identifier(name)))
        assert query(postgres.database_url(name), "select current_database()") == [(name,)]


def test_durability_is_on_unless_a_setting_says_otherwise(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "data") as postgres:
        assert query(postgres.url, "show fsync") == [("on",)]
        assert query(postgres.url, "show full_page_writes") == [("on",)]


def test_an_environment_for_another_server_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGCLIENTENCODING", "no such encoding")
    with make_postgres(tmp_path / "data") as postgres:
        if sys.platform == "linux":
            assert b"PGPORT" not in Path(f"/proc/{postgres.pid}/environ").read_bytes()
        monkeypatch.undo()
        assert query(postgres.url, "select 1") == [(1,)]


def test_a_stop_does_not_wait_for_clients_and_needs_no_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmbeddedPostgres, "grace_seconds", 300.0)
    postgres = make_postgres(tmp_path / "data").start()
    with closing(psycopg.connect(postgres.url)) as client:
        client.execute("select 1")
        postgres.stop()
    assert "received fast shutdown request" in postgres.log_path.read_text()  # a smart one waits for clients
    with postgres:
        assert "database system was shut down at" in postgres.log_path.read_text()


@linux_only
def test_a_killed_postmaster_with_busy_clients_loses_nothing(tmp_path: Path) -> None:
    postgres = make_postgres(tmp_path / "data").start()
    write(postgres.url)
    with closing(psycopg.connect(postgres.url)) as busy:
        busy.execute("select 1")
        kill_server(postgres.pid)
        postgres.stop()
        with postgres:
            assert read(postgres.url) == "kept"


def test_a_stale_pid_file_harms_no_innocent_process(tmp_path: Path) -> None:
    with make_postgres(tmp_path / "data") as postgres:
        write(postgres.url)
        owner = postgres.data_dir.stat()
        words = (postgres.data_dir / "postmaster.pid").read_text().splitlines()
    with subprocess.Popen(["/bin/sleep", "60"], user=owner.st_uid if os.geteuid() == 0 else None) as innocent:
        stale = tmp_path / "data" / "postmaster.pid"
        stale.write_text("\n".join([str(innocent.pid), *words[1:]]))
        os.chown(stale, owner.st_uid, owner.st_gid)
        with make_postgres(tmp_path / "data") as postgres:
            assert postgres.pid != innocent.pid
            assert read(postgres.url) == "kept"
        assert innocent.poll() is None
        innocent.kill()


@linux_only
def test_a_server_that_was_started_by_other_means_is_left_alone(tmp_path: Path) -> None:
    with make_postgres(tmp_path / "data") as postgres:
        (tmp_path / "data.lock").unlink()  # as if it had been started without one
        with pytest.raises(EmbeddedError, match=f"in use by process {postgres.pid}, a PostgreSQL started by other"):
            make_postgres(tmp_path / "data").start()
        assert query(postgres.url, "select 1") == [(1,)]
        assert (tmp_path / "data" / "postmaster.pid").exists()


@linux_only
def test_a_kill_in_the_middle_of_initdb_is_made_good_by_the_next_start(tmp_path: Path) -> None:
    half_done = tmp_path / "data.initdb"
    with spawn_parent("postgres", tmp_path / "data") as parent:
        assert within(60, (half_done / "PG_VERSION").exists)
        parent.kill()
    assert not (tmp_path / "data").exists()
    with make_postgres(tmp_path / "data") as postgres:
        write(postgres.url)
    assert not half_done.exists()


def test_what_an_interrupted_initdb_left_is_not_taken_for_a_database(tmp_path: Path) -> None:
    (tmp_path / "data.initdb" / "base").mkdir(parents=True)
    (tmp_path / "data.initdb" / "PG_VERSION").write_text("18\n")
    with make_postgres(tmp_path / "data") as postgres:
        write(postgres.url)
    assert not (tmp_path / "data.initdb").exists()


def test_a_failed_initdb_is_quoted_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.embedded.postgres._INITDB", ("--no-such-option",))
    with pytest.raises(EmbeddedError, match=r"initdb failed: .*no-such-option"):
        make_postgres(tmp_path / "data").start()
    assert {path.name for path in tmp_path.iterdir()} == {"data.lock", "data.log", "data.password"}


def test_a_folder_of_another_major_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with make_postgres(tmp_path / "data"):
        pass
    (tmp_path / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedError, match="was made by PostgreSQL 17 and this is PostgreSQL 18"):
        make_postgres(tmp_path / "data").start()


@linux_only
def test_ending_the_parent_politely_takes_the_server_along(tmp_path: Path) -> None:
    with spawn_parent("postgres", tmp_path / "data") as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline().split()[0])
        parent.send_signal(signal.SIGTERM)
        assert within(60, lambda: not is_alive(pid))


def test_the_wheel_has_the_version_that_is_pinned() -> None:
    shown = subprocess.run([find_server_program(POSTGRES), "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("postgres (PostgreSQL) 18.")
