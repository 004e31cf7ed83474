"""What both embedded servers share: lock, password, socket or port, start, readiness, stop."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tenacity import stop_after_attempt, wait_none

from app.core.retrying import RetryPolicy, call_blocking_with_retries
from app.embedded.binaries import ServerWheel, find_readable_program, find_server_program
from app.embedded.data_folder import DataFolderLock, EmbeddedError, PortTaken, read_or_create_password
from app.embedded.process import (
    choose_server_account,
    end_process,
    is_root,
    launch_server_process,
    require_own_folder,
    summarize_log_failure,
)

_POLL_SECONDS = 0.01
_PORT_ATTEMPTS = 5
_CONNECT_SECONDS = 1.0
_LONGEST_SOCKET_PATH = 103  # bytes, on macOS; Linux has 107


class EmbeddedServer(ABC):
    """A PostgreSQL or Valkey over one data folder, on a Unix socket in it that is closed to other users.

    With a `port`, and where there can be no such socket, it listens on 127.0.0.1 instead; `url` has its password.
    `address_path` is where its owner may write its URL for other commands. `wait_seconds` is how long a start waits for
    another server of the folder to end. Start from the main thread: Linux stops the server when its thread ends.
    """

    wheel: ClassVar[ServerWheel]
    marker: ClassVar[str]  # what a folder with data of this server has in it
    socket_name: ClassVar[str]
    grace_seconds: ClassVar[float] = 15.0
    ready_seconds: ClassVar[float] = 60.0

    def __init__(self, data_dir: Path, port: int | None = None, *, wait_seconds: float = 5.0) -> None:
        self.data_dir = data_dir.resolve()
        self.log_path = self.data_dir.with_name(self.data_dir.name + ".log")
        self.address_path = self.data_dir.with_name(self.data_dir.name + ".address")
        self._password_path = self.data_dir.with_name(self.data_dir.name + ".password")
        self._password = ""
        self._wanted_port = port
        self.socket_path = None if port is not None else _usable_socket_path(self.data_dir / self.socket_name)
        self._wait_seconds = wait_seconds
        self._lock: DataFolderLock | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    @abstractmethod
    def url(self) -> str: ...

    @property
    def pid(self) -> int:
        if self._process is None:
            raise EmbeddedError(f"The embedded {self.wheel.server} is not started.")
        return self._process.pid

    @property
    def port(self) -> int:
        _ = self.pid  # raises before the start
        return self._port

    def connect(self, url: str) -> socket.socket:
        """Open a connection to a server of this kind by its URL. Raises `OSError`."""
        parts = urlsplit(url)
        if parts.hostname is not None:
            return socket.create_connection((parts.hostname, parts.port or 0), _CONNECT_SECONDS)
        folder = parse_qs(parts.query).get("host")
        path = Path(folder[0], self.socket_name) if folder else Path(unquote(parts.path))
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_CONNECT_SECONDS)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            raise
        return connection

    def start(self) -> Self:
        """Start the server and wait until it is ready. Raises `EmbeddedError`."""
        if self._lock is not None:
            raise EmbeddedError(f"The embedded {self.wheel.server} is started already.")
        if threading.current_thread() is not threading.main_thread():
            raise EmbeddedError(
                f"Start the embedded {self.wheel.server} from the main thread: it ends with its thread."
            )
        try:
            self._lock_folder_and_serve()
        except OSError as error:
            self.stop()
            raise EmbeddedError(f"{self.wheel.server} cannot start in {self.data_dir}: {error}.") from error
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server and unlock the folder; safe to call again."""
        process, lock = self._process, self._lock
        self._process = self._lock = None
        try:
            if process is not None:
                end_process(process, self._stop_signals(), self.grace_seconds)
        finally:
            if lock is not None:
                lock.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    @abstractmethod
    def _stop_signals(self) -> Sequence[signal.Signals]:
        """Return the signals to stop with, gentlest first; the last is also sent when the parent dies."""

    @abstractmethod
    def _prepare_folder(self, program: Path) -> None:
        """Create the data folder where it is missing, and check it."""

    @abstractmethod
    def _make_command(self, program: Path, port: int) -> list[str]:
        """Return the command that starts the server; `port` is 0 for the socket in the working folder."""

    @abstractmethod
    def _is_ready(self, pid: int) -> bool:
        """Return whether the server with this process id takes connections."""

    def _make_standard_input(self) -> str:
        """Return the standard input of the server: secrets go there, not on its visible command line."""
        return ""

    def _lock_folder_and_serve(self) -> None:
        program = find_server_program(self.wheel)
        if is_root():
            program = find_readable_program(self.wheel, program)
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        self._lock = DataFolderLock.acquire(self.data_dir, self._wait_seconds)
        self.address_path.unlink(missing_ok=True)  # of a server that was killed
        if self.data_dir.exists():
            self._refuse_folder_with_other_content()
        self._password = read_or_create_password(self._password_path)
        self._prepare_folder(program)
        if self.socket_path is not None and not _can_have_socket(self.socket_path):
            self.socket_path = None
        if self.socket_path is None:
            self._launch_on_free_or_wanted_port(program)
        else:
            self._launch_and_wait(program, 0)
        self._lock.write_holder(f"process {os.getpid()}, its server is process {self.pid}")

    def _refuse_folder_with_other_content(self) -> None:
        require_own_folder(self.data_dir)
        if any(self.data_dir.iterdir()) and not (self.data_dir / self.marker).exists():
            raise EmbeddedError(f"{self.data_dir} is not empty and holds no {self.wheel.server} data: move it away.")

    def _launch_on_free_or_wanted_port(self, program: Path) -> None:
        policy = RetryPolicy(PortTaken, wait_none(), stop_after_attempt(1 if self._wanted_port else _PORT_ATTEMPTS))
        launch = partial(self._launch_and_wait, program)
        call_blocking_with_retries(lambda: launch(self._wanted_port or _find_free_port()), policy)

    def _launch_and_wait(self, program: Path, port: int) -> None:
        self._port = port
        command = self._make_command(program, port)
        self._process = self._launch_process(command, self.data_dir, self._make_standard_input())
        self._wait_until_ready(self._process)

    def _launch_process(self, command: Sequence[str], folder: Path, text: str = "") -> subprocess.Popen[bytes]:
        assert self._lock is not None  # noqa: S101  nothing is launched before it
        return launch_server_process(
            command,
            folder=folder,
            account=choose_server_account(folder),
            log=self.log_path,
            lock=self._lock.descriptor,
            death_signal=self._stop_signals()[-1],
            text=text,
        )

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.ready_seconds
        while not self._is_ready(process.pid):
            if process.poll() is not None:
                raise self._make_failure_error("did not start")
            if time.monotonic() > deadline:
                raise self._make_failure_error(f"was not ready after {self.ready_seconds:.0f} s")
            time.sleep(_POLL_SECONDS)

    def _make_failure_error(self, problem: str) -> EmbeddedError:
        if "Address already in use" in self.log_path.read_text(errors="replace"):
            return PortTaken(f"{self.wheel.server} did not start: port {self._port} is taken by another process.")
        cause = summarize_log_failure(self.log_path)
        return EmbeddedError(f"{self.wheel.server} {problem}: {cause} (more in {self.log_path}).")


def _usable_socket_path(path: Path) -> Path | None:
    """Return the path, or None where it is too long for a socket or impossible in a URL."""
    try:
        size = len(str(path).encode())
    except UnicodeEncodeError:
        return None
    has_sockets = sys.platform != "win32"
    return path if has_sockets and size <= _LONGEST_SOCKET_PATH and "," not in str(path) else None


def _can_have_socket(path: Path) -> bool:
    """Return whether the file system supports sockets; remove a stale one."""
    path.unlink(missing_ok=True)  # of a server that was killed
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
    except OSError:
        return False
    path.unlink()
    return True


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
