"""Megabytes per second of a video that is in the page cache, beside what file servers do."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from urllib.request import urlopen

import psycopg

from tests.performance.client import Load, Request, Result
from tests.performance.databases import Databases
from tests.performance.measure import Figures, Pace, send
from tests.performance.servers import OURS, Server, free_port

CASES = {"whole film": None, "ranges of 1 MB": 2**20}
NGINX, PYTHON = "nginx", "http.server"

_FILM_BYTES = 64 * 2**20
_CONNECTIONS = 4
_DATABASE = "streams"
_READY_SECONDS = 10.0
_NGINX_CONFIG = """
{user} worker_processes 1; daemon off; pid nginx.pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off; sendfile on; keepalive_requests 1000000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def measure_streams(
    folder: Path, databases: Databases, variables: Mapping[str, str], pace: Pace
) -> Iterator[tuple[str, dict[str, Figures]]]:
    """Yield each case with its megabytes per second by server; nginx is left out where it is not installed."""
    video_file = folder / "films" / "film.mp4"
    video_file.parent.mkdir()
    video_file.write_bytes(os.urandom(2**20) * (_FILM_BYTES // 2**20))
    with ExitStack() as stack:
        servers = {
            OURS.name: stack.enter_context(_ours(video_file, databases, variables)),
            PYTHON: stack.enter_context(_http_server(video_file.parent)),
        }
        if shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin"):
            servers[NGINX] = stack.enter_context(_nginx(video_file.parent))
        for name, range_bytes in CASES.items():
            able = {who: where for who, where in servers.items() if range_bytes is None or who != PYTHON}
            yield name, _measure(able, range_bytes, pace)


def _measure(servers: Mapping[str, tuple[int, str]], range_bytes: int | None, pace: Pace) -> dict[str, Figures]:
    results: dict[str, list[Result]] = {name: [] for name in servers}
    for _ in range(pace.rounds):
        for name, (port, path) in servers.items():
            requests = list(_requests(path, range_bytes))
            status = 200 if range_bytes is None else 206
            results[name].append(
                send(name, Load(port, requests, status=status, connections=_CONNECTIONS, seconds=pace.seconds))
            )
    size = (range_bytes or _FILM_BYTES) / 1e6
    return {name: _summarize(of_one, size) for name, of_one in results.items()}


def _requests(path: str, range_bytes: int | None) -> Iterator[Request]:
    if range_bytes is None:
        yield Request(path)
        return
    for start in range(0, _FILM_BYTES, range_bytes):
        yield Request(path, headers={"Range": f"bytes={start}-{start + range_bytes - 1}"})


def _summarize(results: Sequence[Result], megabytes: float) -> Figures:
    return Figures(
        per_second=median(result.per_second for result in results) * megabytes,
        p50=median(result.p50 for result in results),
        p99=median(result.p99 for result in results),
        client_busy=max(result.client_busy for result in results),
    )


@contextmanager
def _ours(video_file: Path, databases: Databases, variables: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    databases.create(_DATABASE)
    with psycopg.connect(databases.url(_DATABASE)) as conn:
        conn.execute("INSERT INTO videos (identifier, cloud_url) VALUES ('film', %s)", [video_file.as_uri()])
    environment = {**variables, "DATABASE_URL": databases.url(_DATABASE), "LIBRARY_DIRS": str(video_file.parent)}
    with Server(OURS, environment) as server:
        yield server.port, "/api/videos/film/stream"


@contextmanager
def _http_server(folder: Path) -> Iterator[tuple[int, str]]:
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--protocol", "HTTP/1.1"]
    with _running(command, folder, port):
        yield port, "/film.mp4"


@contextmanager
def _nginx(folder: Path) -> Iterator[tuple[int, str]]:
    port = free_port()
    prefix = folder.parent / "nginx"
    prefix.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    (prefix / "nginx.conf").write_text(_NGINX_CONFIG.format(user=user, port=port, root=folder))
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin") or "nginx"
    with _running([program, "-p", f"{prefix}/", "-c", "nginx.conf"], prefix, port):
        yield port, "/film.mp4"


@contextmanager
def _running(command: Sequence[str], folder: Path, port: int) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_ready(process, port)
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/film.mp4") as answer:
                answer.read(1)
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("A file server did not start") from None
            time.sleep(0.05)
