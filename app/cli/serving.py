"""`python -m app run` without a video: the server."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from app.cli.servers import open_migrated_servers
from app.core.addresses import OPEN_TO_ALL, is_loopback_host
from app.core.config import Settings, get_settings
from app.core.console import open_console
from app.core.errors import ConfigurationError
from app.embedded.local import uses_embedded_postgres

_log = logging.getLogger(__name__)
_console = open_console()


def run_server() -> int:
    is_embedded = uses_embedded_postgres(get_settings())
    with open_migrated_servers(redis=True, share=False) as settings:
        if settings.run_pipeline_worker is None:
            os.environ["RUN_PIPELINE_WORKER"] = "true"  # the server reads its settings again
            get_settings.cache_clear()
        with _open_listening_socket(settings) as listener:
            _print_server_addresses(settings, is_embedded)
            if not settings.api_keys and not is_loopback_host(settings.host):
                _log.warning(OPEN_TO_ALL, settings.host, settings.port)
            return _run_uvicorn(listener)


@contextmanager
def _open_listening_socket(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigurationError(f"Cannot listen on {settings.host}:{settings.port}: {reason}") from None
    with listener:
        yield listener


def _run_uvicorn(listener: socket.socket) -> int:
    config = uvicorn.Config(
        "app.main:app",
        log_config=None,
        access_log=False,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http="app.api.http_protocol:LimitedProtocol",
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    server.run([listener])
    return 0 if server.started else 1


def _print_server_addresses(settings: Settings, is_embedded: bool) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{settings.port}"
    data = settings.data_dir.resolve() if is_embedded else "the database of DATABASE_URL"
    for line in (
        f"VideoMoments  {url}",
        f"  API docs    {url}/docs",
        f"  health      {url}/health",
        f"  data        {data}",
        "  import      make import DIR=path/to/static",
        "Ctrl-C ends it.",
    ):
        _console.print(line, markup=False)
