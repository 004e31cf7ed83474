"""The servers a command works with: those that the settings name, and embedded ones where they name none."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from app.core.config import Settings, get_settings
from app.embedded.errors import EmbeddedError
from app.embedded.lock import FolderLock
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.server import Server
from app.embedded.valkey import EmbeddedValkey

DATABASE_NAME = "videomoments"


def uses_embedded_postgres(settings: Settings) -> bool:
    """Whether no database was named, neither in the environment nor in `.env`."""
    return "database_url" not in settings.model_fields_set


@contextmanager
def local_servers(*, redis: bool, share: bool) -> Iterator[Settings]:
    """Yield the process's settings with an address for each server, which are also in the environment inside the block.

    Where none was named, the embedded server over its folder of `data_dir` is started for the block; with `share`, one
    that another command runs is used instead. Raises `EmbeddedError`.
    """
    settings = get_settings()
    with ExitStack() as stack:
        if uses_embedded_postgres(settings):
            postgres = EmbeddedPostgres(settings.data_dir / "postgres")
            _enter(stack, postgres, share, "DATABASE_URL", f"/{DATABASE_NAME}")
        if redis and "redis_url" not in settings.model_fields_set:
            _enter(stack, EmbeddedValkey(settings.data_dir / "valkey"), share, "REDIS_URL", "/0")
        get_settings.cache_clear()
        stack.callback(get_settings.cache_clear)
        yield get_settings()


def _enter(stack: ExitStack, server: Server, share: bool, variable: str, path: str) -> None:
    address = server.data_dir.with_name(server.data_dir.name + ".address")
    url = _running_url(server, address) if share else None
    if url is None:
        stack.enter_context(server)
        url = server.url.rpartition("/")[0]
        address.write_text(url)
        stack.callback(address.unlink, missing_ok=True)
    os.environ[variable] = url + path
    stack.callback(os.environ.pop, variable, None)


def _running_url(server: Server, address: Path) -> str | None:
    """Return where the folder's server runs, or None where it does not: then nobody holds its lock."""
    if not address.exists():
        return None
    try:
        FolderLock.acquire(server.data_dir, 0).close()
    except EmbeddedError:
        with suppress(FileNotFoundError):
            return address.read_text()
    return None
