"""A library of the previous backend, to import, and commands in the process of a test."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest

from app.cli.command_line import run_command
from app.core.config import Settings
from app.embedded import local
from tests.importer.conftest import importer, legacy

__all__ = ["importer", "legacy"]


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command on the servers of some settings, and raises what it fails with."""

    def run(settings: Settings, *arguments: str) -> int:
        monkeypatch.setattr(local, "start_or_join_servers", lambda **_: nullcontext(settings))
        return run_command(list(arguments))

    return run
