"""An embedded Valkey, which speaks the protocol of Redis."""

import hashlib
import signal
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.embedded.binaries import VALKEY
from app.embedded.server import EmbeddedServer

# Of the dangerous ones, those that read no other process's data, lead nowhere else and leave no file.
_PLAIN_COMMANDS = "+@all -@dangerous -@admin +info +keys +flushdb +client|pause +client|unpause"


class EmbeddedValkey(EmbeddedServer):
    """A Valkey server that asks for a password; a write is on disk within a second.

    The user of `url` may run no command that administers the server, unless `is_admin`.
    """

    wheel = VALKEY
    marker = "appendonlydir"
    socket_name = "valkey.sock"

    def __init__(
        self, data_dir: Path, port: int | None = None, *, is_admin: bool = False, wait_seconds: float = 5.0
    ) -> None:
        super().__init__(data_dir, port, wait_seconds=wait_seconds)
        self._commands = "+@all" if is_admin else _PLAIN_COMMANDS

    @property
    def url(self) -> str:
        port = self.port  # or the server is not started
        if self.socket_path is not None:
            return f"unix://:{self._password}@{quote(str(self.socket_path))}?db=0"
        return f"redis://:{self._password}@127.0.0.1:{port}/0"

    def _stop_signals(self) -> Sequence[signal.Signals]:
        return (signal.SIGTERM,)

    def _prepare_folder(self, program: Path) -> None:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)

    def _make_command(self, program: Path, port: int) -> list[str]:
        return [str(program), "-"]

    def _make_standard_input(self) -> str:
        """Return the configuration; without `dir` it uses its working folder, whatever the rights above it."""
        digest = hashlib.sha256(self._password.encode()).hexdigest()
        place = f"unixsocket {self.socket_name}\nunixsocketperm 700\n" if self.socket_path is not None else ""
        return (
            f"bind 127.0.0.1\nport {self._port}\n{place}"
            'appendonly yes\nsave ""\n'
            f"user default reset on #{digest} ~* &* {self._commands}\n"
        )

    def _is_ready(self, pid: int) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=0.5, retry=Retry(NoBackoff(), 0)) as client:
                info = client.info("server", "persistence")
        except (redis.RedisError, OSError, ValueError):  # the last for a port that cannot be, of which it ends
            return False
        return bool(info["process_id"] == pid and info["loading"] == 0)
