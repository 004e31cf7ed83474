"""Servers that several commands over one data folder share."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.core.config import get_settings
from app.embedded.local import start_or_join_servers
from tests.retries import remove_waits

from .servers import ROOT, linux_only, query

# A command that prints the URL of its database, and ends when its input does.
_COMMAND = """
import sys
from app.embedded.local import start_or_join_servers
with start_or_join_servers(redis=False, share=True) as settings:
    print(settings.database_url.get_secret_value(), flush=True)
    sys.stdin.read()
"""


@contextmanager
def command(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "DATA_DIR": str(folder), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def url_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


def pid_of_server(folder: Path) -> int:
    return int((folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])


@linux_only
def test_the_server_of_a_killed_command_is_not_joined_while_it_ends(folder: Path) -> None:
    with command(folder) as owner:
        assert url_of(owner)
        server = pid_of_server(folder)
        os.kill(server, signal.SIGSTOP)  # it still takes connections, and answers none
        owner.kill()
        owner.wait()
        threading.Timer(0.5, os.kill, (server, signal.SIGCONT)).start()
        with start_or_join_servers(redis=False, share=True) as settings:
            url = urlsplit(settings.database_url.get_secret_value())._replace(path="/postgres")
            assert query(url.geturl(), "select 1") == [(1,)]


def test_a_command_joins_an_owner_that_waits_for_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        owner = stack.enter_context(command(folder))
        first = url_of(owner)  # before the other one begins, which would be the owner where it is faster
        guest = stack.enter_context(command(folder))
        assert url_of(guest) == first
        assert owner.stdin is not None
        owner.stdin.close()  # it is done, and waits for its guest
        with pytest.raises(subprocess.TimeoutExpired):
            owner.wait(0.5)
        remove_waits(monkeypatch, "app.embedded.local._JOIN_POLICY", calls=1)
        with start_or_join_servers(redis=False, share=True) as settings:
            assert settings.database_url.get_secret_value() == first
            guest.communicate("")
            with pytest.raises(subprocess.TimeoutExpired):
                owner.wait(0.5)
        assert owner.wait(60) == 0
    assert not list(folder.glob("*.address"))
