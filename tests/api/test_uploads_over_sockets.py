"""Uploads to a real server: how much memory they take, and what is left when one side goes away."""

import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.serving import ServerProcess, serving

MB = 1024 * 1024

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and limits other processes")


@pytest.fixture
def server(tmp_path: Path, media: Path, own_database_url: str, redis_url: str) -> Iterator[ServerProcess]:
    with start(tmp_path, media, own_database_url, redis_url) as server:
        yield server


def start(folder: Path, media: Path, database_url: str, redis_url: str) -> AbstractContextManager[ServerProcess]:
    return serving(
        folder,
        database_url=database_url,
        redis_url=redis_url,
        storage_url=media.as_uri(),
        data_dir=folder / "data",
        max_upload_bytes=400 * MB,
    )


def long_movie(movie: bytes, megabytes: int) -> Iterator[bytes]:
    """The video with so many megabytes behind it that players skip."""
    yield movie + struct.pack(">I4s", megabytes * MB + 8, b"free")
    for _ in range(megabytes):
        yield bytes(MB)


def files_in(media: Path) -> list[Path]:
    return [path for path in media.rglob("*") if path.is_file()]


def peak_memory(server: ServerProcess) -> int:
    """Bytes that the process has had in memory at most."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def begin_upload(server: ServerProcess, data: bytes, *headers: str) -> socket.socket:
    """Send the beginning of an upload of 100 MB and leave it there."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    lines = ["POST /api/videos?id=talk HTTP/1.1", "Host: localhost", f"Content-Length: {100 * MB}", *headers, "", ""]
    connection.sendall("\r\n".join(lines).encode() + data)
    return connection


def arrived(media: Path) -> int:
    return sum(path.stat().st_size for path in files_in(media))


@pytest.mark.parametrize("as_form", [False, True])
def test_a_long_video_file_takes_no_more_memory_than_a_short_one(
    server: ServerProcess, media: Path, movie: bytes, as_form: bool
) -> None:
    httpx.post(f"{server.url}/api/videos", content=movie, params={"id": "short"}).raise_for_status()
    before = peak_memory(server)
    body, headers = long_movie(movie, 300), {}
    if as_form:
        body, headers = in_form(body), {"Content-Type": "multipart/form-data; boundary=b"}
    answer = httpx.post(f"{server.url}/api/videos", content=body, headers=headers, params={"id": "long"}, timeout=120)
    assert answer.status_code == 201, answer.text
    assert max(path.stat().st_size for path in files_in(media)) > 300 * MB
    assert peak_memory(server) - before < 32 * MB


def in_form(body: Iterator[bytes]) -> Iterator[bytes]:
    yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="long.mp4"\r\n\r\n'
    yield from body
    yield b"\r\n--b--\r\n"


def test_a_client_that_hangs_up_leaves_nothing(server: ServerProcess, media: Path, movie: bytes) -> None:
    with begin_upload(server, movie + bytes(MB)):
        eventually(lambda: arrived(media) > MB)
    eventually(lambda: files_in(media) == [])
    assert httpx.get(f"{server.url}/api/videos").json() == []


def test_a_server_that_is_killed_leaves_what_the_next_one_sweeps(
    tmp_path: Path, media: Path, movie: bytes, own_database_url: str, redis_url: str
) -> None:
    with start(tmp_path, media, own_database_url, redis_url) as server, begin_upload(server, movie + bytes(MB)):
        eventually(lambda: arrived(media) > MB)
        server.process.kill()
    (left,) = files_in(media)
    an_hour_ago = time.time() - 3600
    os.utime(left, (an_hour_ago, an_hour_ago))
    with start(tmp_path, media, own_database_url, redis_url) as server:
        assert httpx.get(f"{server.url}/api/videos").json() == []
        answer = httpx.post(f"{server.url}/api/videos", content=movie, params={"id": "talk"})
        assert answer.status_code == 201
    assert not left.exists()
    assert len(files_in(media)) == 1


def test_a_client_that_asks_first_need_not_send_a_file_whose_name_is_taken(server: ServerProcess, movie: bytes) -> None:
    with begin_upload(server, b"", "Expect: 100-continue") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
    httpx.post(f"{server.url}/api/videos", content=movie, params={"id": "talk"}).raise_for_status()
    with begin_upload(server, b"", "Expect: 100-continue") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 409")


def test_a_disk_that_is_full_is_507_and_leaves_nothing(server: ServerProcess, media: Path, movie: bytes) -> None:
    import resource

    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (MB, MB))
    answer = httpx.post(f"{server.url}/api/videos", content=long_movie(movie, 3), params={"id": "talk"})
    assert answer.status_code == 507
    assert answer.json()["detail"].startswith("There is no room for the file")
    assert files_in(media) == []
    assert httpx.get(f"{server.url}/api/videos").json() == []


def test_uploads_of_one_name_at_once_make_one_video(server: ServerProcess, media: Path, movie: bytes) -> None:
    def upload(_: int) -> int:
        return httpx.post(f"{server.url}/api/videos", content=movie, params={"id": "talk"}, timeout=120).status_code

    with ThreadPoolExecutor(20) as threads:
        statuses = sorted(threads.map(upload, range(20)))
    assert statuses == [201] + [409] * 19
    assert len(files_in(media)) == 1
    assert httpx.get(f"{server.url}/api/videos/talk/stream").content == movie


def test_files_of_one_name_that_arrive_at_once_are_as_many_videos(
    server: ServerProcess, media: Path, movie: bytes
) -> None:
    def upload(_: int) -> str:
        answer = httpx.post(f"{server.url}/api/videos", content=movie, params={"filename": "Talk.mp4"}, timeout=60)
        return str(answer.json()["id"])

    with ThreadPoolExecutor(25) as threads:
        names = set(threads.map(upload, range(50)))
    assert len(names) == len(files_in(media)) == 50
    assert "talk" in names


def test_a_video_that_is_uploaded_while_its_name_is_deleted_keeps_its_file(
    server: ServerProcess, media: Path, movie: bytes
) -> None:
    def upload(_: int) -> int:
        return httpx.post(f"{server.url}/api/videos", content=movie, params={"id": "talk"}, timeout=120).status_code

    def delete(_: int) -> int:
        return httpx.delete(f"{server.url}/api/videos/talk", timeout=120).status_code

    def stream(_: int) -> int:
        return httpx.get(f"{server.url}/api/videos/talk/stream", timeout=120).status_code

    with ThreadPoolExecutor(12) as threads:
        deleted = threads.map(delete, range(60))
        uploaded = list(threads.map(upload, range(60)))
        assert set(deleted) <= {200, 404}
    assert set(uploaded) <= {201, 409}
    if httpx.get(f"{server.url}/api/videos/talk").status_code == 200:
        assert stream(0) == 200
    httpx.delete(f"{server.url}/api/videos/talk")
    assert files_in(media) == []
