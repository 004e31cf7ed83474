"""What the tests of the embedded servers share: servers, clients, and a look at the processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
import redis

from app.embedded import EmbeddedPostgres, EmbeddedValkey

ROOT = Path(__file__).parents[2]
QUICK = {"fsync": "off", "shared_buffers": "4MB"}
KINDS: dict[str, Callable[..., EmbeddedPostgres | EmbeddedValkey]] = {
    "postgres": EmbeddedPostgres,
    "valkey": EmbeddedValkey,
}

each_kind = pytest.mark.parametrize("kind", KINDS)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a server with its parent")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root has a right to give up")

# A parent that does nothing: prints the server's pid and URL, then sleeps until it is killed.
_PARENT = """
import sys, time
from pathlib import Path
from app.embedded import EmbeddedPostgres, EmbeddedValkey
server = {"postgres": EmbeddedPostgres, "valkey": EmbeddedValkey}[sys.argv[1]](Path(sys.argv[2])).start()
print(server.pid, server.url, flush=True)
time.sleep(60)
"""


@dataclass(frozen=True)
class Elsewhere:
    """A server that another Python process has started."""

    parent: subprocess.Popen[str]
    pid: int
    url: str

    def kill_parent(self) -> None:
        self.parent.kill()
        self.parent.wait()


def spawn_parent(kind: str, folder: Path, user: str | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _PARENT, kind, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        user=user,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )


@contextmanager
def started_elsewhere(kind: str, folder: Path, user: str | None = None) -> Iterator[Elsewhere]:
    with spawn_parent(kind, folder, user) as parent:
        try:
            assert parent.stdout is not None
            pid, url = parent.stdout.readline().split()
            yield Elsewhere(parent, int(pid), url)
        finally:
            parent.kill()


def query(url: str, statement: LiteralString) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        cursor = conn.execute(statement)
        return cursor.fetchall() if cursor.description else []


def write(url: str) -> None:
    """Leave a word in either server."""
    if not url.startswith("postgres"):
        with redis.Redis.from_url(url) as client:
            client.set("word", "kept")
    else:
        query(url, "create table words as select 'kept' as word")


def read(url: str) -> object:
    """The word that `write` left, None where it is lost."""
    if not url.startswith("postgres"):
        with redis.Redis.from_url(url, decode_responses=True) as client:
            return client.get("word")
    return query(url, "select word from words")[0][0]


def pids_in(folder: Path) -> list[int]:
    """Processes whose working folder is `folder`: a server and its children."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.path.samefile(entry / "cwd", folder):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def within(seconds: float, condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def kill_server(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    within(60, lambda: Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] == "Z")
