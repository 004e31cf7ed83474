"""The servers of a command: those of the settings, and embedded ones where the settings name none."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from urllib.parse import urlsplit

from pydantic import SecretStr
from tenacity import stop_after_delay, wait_fixed

from app.core.config import Settings, get_settings
from app.core.errors import ConfigurationError
from app.core.private_files import prepare_data_folder
from app.core.retrying import RetryPolicy, call_blocking_with_retries
from app.embedded.data_folder import FolderTaken, SharedServerAddress
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.server import EmbeddedServer
from app.embedded.valkey import EmbeddedValkey

DATABASE_NAME = "videomoments"

_WAIT_SECONDS = 5.0  # for a server that is going away
# For a server that is coming: it makes its folder first, and may take a minute to be ready.
_JOIN_POLICY = RetryPolicy(FolderTaken, wait_fixed(0.05), stop_after_delay(120.0))


def uses_embedded_postgres(settings: Settings) -> bool:
    return "database_url" not in settings.model_fields_set and settings.database_sync_url is None


def _lone_sync_url(settings: Settings) -> SecretStr | None:
    """Return DATABASE_SYNC_URL where DATABASE_URL is not set, else None."""
    return None if "database_url" in settings.model_fields_set else settings.database_sync_url


def refuse_lone_sync_url(settings: Settings) -> None:
    """Raise `ConfigurationError` where migrations and the application would use different databases."""
    if _lone_sync_url(settings):
        raise ConfigurationError("DATABASE_SYNC_URL is set and DATABASE_URL is not: set both")


@contextmanager
def start_or_join_servers(*, redis: bool, share: bool) -> Iterator[Settings]:
    """Start embedded servers for the block where the settings name none; yield the settings with all addresses.

    With `share`, a server that another command runs, or is about to run, is used instead. A database that only
    DATABASE_SYNC_URL names is DATABASE_URL too. Raises `EmbeddedError`.
    """
    settings = get_settings()
    wait = 0 if share else _WAIT_SECONDS
    uses_valkey = redis and "redis_url" not in settings.model_fields_set
    with ExitStack() as stack:
        provide_server = partial(_join_or_start if share else _start_and_publish_url, stack)
        if uses_embedded_postgres(settings) or uses_valkey:
            _make_data_folder_private(stack, settings)
        if uses_embedded_postgres(settings):
            postgres = EmbeddedPostgres(settings.data_dir / "postgres", wait_seconds=wait)
            server_url = provide_server(postgres)
            _set_variable(stack, "DATABASE_URL", urlsplit(server_url)._replace(path=f"/{DATABASE_NAME}").geturl())
        elif url := _lone_sync_url(settings):
            _set_variable(stack, "DATABASE_URL", url.get_secret_value())
        if uses_valkey:
            valkey = EmbeddedValkey(settings.data_dir / "valkey", wait_seconds=wait)
            _set_variable(stack, "REDIS_URL", provide_server(valkey))
        get_settings.cache_clear()
        stack.callback(get_settings.cache_clear)
        yield get_settings()


def _make_data_folder_private(stack: ExitStack, settings: Settings) -> None:
    with suppress(OSError):  # where a server needs it, the server says so
        prepare_data_folder(settings)
    if settings.storage_url is None:
        stack.callback(os.umask, os.umask(0o077))


def _set_variable(stack: ExitStack, variable: str, value: str) -> None:
    os.environ[variable] = value
    stack.callback(os.environ.pop, variable, None)


def _start_and_publish_url(stack: ExitStack, server: EmbeddedServer, *, wait_for_guests: bool = False) -> str:
    stack.enter_context(server)
    stack.enter_context(SharedServerAddress(server.address_path).publish(server.url, wait_for_guests=wait_for_guests))
    return server.url


def _join_or_start(stack: ExitStack, server: EmbeddedServer) -> str:
    """Return the URL of the server that another command runs or is starting, or else start it."""

    def join_or_start() -> str:
        try:
            return _start_and_publish_url(stack, server, wait_for_guests=True)
        except FolderTaken:
            if (url := _join_running_server(stack, server)) is None:
                raise
            return url

    return call_blocking_with_retries(join_or_start, _JOIN_POLICY)


def _join_running_server(stack: ExitStack, server: EmbeddedServer) -> str | None:
    """Keep the server of another command running until the stack closes; return its URL, or None without one."""
    with ExitStack() as visit, suppress(OSError):
        url = visit.enter_context(SharedServerAddress(server.address_path).join())
        if url is not None:
            server.connect(url).close()  # it may have died by itself
            stack.push(visit.pop_all())
        return url
    return None
