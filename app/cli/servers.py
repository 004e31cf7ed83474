"""The servers that a command needs: those of the settings, and embedded ones where the settings name none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.core.config import Settings


@contextmanager
def open_servers(*, redis: bool, share: bool = True) -> "Iterator[Settings]":
    """Yield settings with the addresses of all servers; embedded ones run until the block ends where none is set."""
    from app.embedded.local import start_or_join_servers  # a second of imports, which --help does not need

    with start_or_join_servers(redis=redis, share=share) as settings:
        yield settings


@contextmanager
def open_migrated_servers(*, redis: bool, share: bool = True, log_level: str | None = None) -> "Iterator[Settings]":
    """Open servers, configure the logs, and migrate the database; `log_level` is for settings that name none."""
    from app.core.config import get_settings
    from app.core.logging import configure_logging
    from app.database.migrations import (
        create_database,
        list_migration_revisions,
        read_database_revision,
        upgrade_to_head,
    )
    from app.embedded.local import refuse_lone_sync_url

    refuse_lone_sync_url(get_settings())
    with open_servers(redis=redis, share=share) as settings:
        has_level = log_level is None or "log_level" in settings.model_fields_set
        configure_logging(settings if has_level else settings.model_copy(update={"log_level": log_level}))
        create_database(settings)
        if read_database_revision(settings) != list_migration_revisions()[0]:
            upgrade_to_head()
        yield settings
