"""Streams over real sockets: large files, slow clients, and clients that go away."""

import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from app.core.config import Settings
from app.database import open_async_connection
from tests.factories import make_video
from tests.serving import ServerProcess, serving

GIGABYTE = 1024**3
STREAM = "/api/videos/talk/stream"
WORD = b"here it is"

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def video_file(tmp_path: Path) -> Path:
    """A file of 10 GB that takes no room on the disk, with a word at 9 GB."""
    path = tmp_path / "library" / "talk.mp4"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(10 * GIGABYTE)
        file.seek(9 * GIGABYTE)
        file.write(WORD)
    return path


@pytest.fixture
async def server(
    tmp_path: Path, video_file: Path, own_database_url: str, redis_url: str
) -> AsyncIterator[ServerProcess]:
    """A server with the video `talk` and a single connection to its database."""
    async with open_async_connection(Settings(database_url=own_database_url)) as conn:
        await make_video(conn, identifier="talk", cloud_url=video_file.as_uri())
    settings = {
        "database_url": own_database_url,
        "database_pool_size": 1,
        "database_max_overflow": 0,
        "database_pool_timeout": 2,
        "redis_url": redis_url,
        "data_dir": tmp_path / "data",
        "library_dirs": video_file.parent,
    }
    with serving(tmp_path, **settings) as server:
        yield server


@contextmanager
def slow_client(server: ServerProcess) -> Iterator[None]:
    """Ask for the whole video, and read nothing of it but the beginning."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(f"GET {STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        yield


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def open_files(server: ServerProcess, path: Path) -> int:
    count = 0
    for each in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            count += each.readlink() == path.resolve()
    return count


def most_memory(server: ServerProcess) -> int:
    """Return the most bytes of memory that the process has ever had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def count_threads(server: ServerProcess) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/task"))


@on_linux
def test_a_video_file_of_ten_gigabytes_is_sent_with_little_memory(server: ServerProcess) -> None:
    start = 9 * GIGABYTE
    headers = {"Range": f"bytes={start}-{start + len(WORD) - 1}"}
    part = httpx.get(server.url + STREAM, headers=headers)
    assert (part.status_code, part.content) == (206, WORD)
    assert part.headers["Content-Range"] == f"bytes {start}-{start + len(WORD) - 1}/{10 * GIGABYTE}"
    before = most_memory(server)
    with httpx.stream("GET", server.url + STREAM) as answer:
        assert answer.headers["Content-Length"] == str(10 * GIGABYTE)
        received = 0
        for chunk in answer.iter_bytes(2**20):
            received += len(chunk)
            if received > 300 * 2**20:
                break
    assert most_memory(server) - before < 30 * 2**20


@on_linux
def test_a_client_that_goes_away_leaves_nothing_open_and_no_error(server: ServerProcess, video_file: Path) -> None:
    with slow_client(server):
        until(lambda: open_files(server, video_file) == 1)
    until(lambda: open_files(server, video_file) == 0)
    assert httpx.get(f"{server.url}/health").status_code == 200
    for word in ("rror", "Traceback", "WARNING", "warning"):
        assert word not in server.output


@on_linux
def test_fifty_slow_clients_stop_nobody(server: ServerProcess, video_file: Path) -> None:
    with ExitStack() as clients:
        for _ in range(50):
            clients.enter_context(slow_client(server))
        threads = count_threads(server)
        assert httpx.get(f"{server.url}/health").json()["database"] == "connected"
        assert httpx.get(f"{server.url}/api/videos/talk").status_code == 200
        assert httpx.get(server.url + STREAM, headers={"Range": "bytes=-10"}).content == bytes(10)
        assert threads < 50
    until(lambda: open_files(server, video_file) == 0)


def test_a_video_file_that_becomes_shorter_while_it_is_sent_ends_the_connection(
    server: ServerProcess, video_file: Path
) -> None:
    with httpx.stream("GET", server.url + STREAM) as answer:
        chunks = answer.iter_raw()
        next(chunks)
        os.truncate(video_file, 5000)
        with pytest.raises(httpx.RemoteProtocolError):
            sum(map(len, chunks))
    assert "became shorter" in server.output
    assert httpx.get(server.url + STREAM).headers["Content-Length"] == "5000"
