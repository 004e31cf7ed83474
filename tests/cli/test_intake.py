"""`python -m app intake rejected`: what other programs asked for and could not become a run."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.cli.command_line import main
from app.core.config import Settings
from app.database import open_async_connection
from app.repositories.requests import RejectedRequestRepository
from tests.cli.test_command_line import run

ESCAPE = "Video not found: \x1b[2Jtalk"


@pytest.fixture
async def filled_url(own_database_url: str) -> str:
    async with open_async_connection(Settings(database_url=own_database_url)) as conn:
        for number, reason in enumerate(("config is missing", ESCAPE, "config is not [bold]valid[/] JSON"), 1):
            await RejectedRequestRepository(conn).add_rejected_request(f"{number}-0", "x", {}, reason)
        await conn.execute("UPDATE pipeline.rejected_requests SET received_at = '2026-11-28 08:30:00.7'")
    return own_database_url


def test_rejected_requests_are_listed_as_lines_with_tabs(filled_url: str, tmp_path: Path) -> None:
    result = run(tmp_path / "data", "intake", "rejected", "--limit", "2", DATABASE_URL=filled_url)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "3-0\t2026-11-28 08:30:00\tconfig is not [bold]valid[/] JSON",
        "2-0\t2026-11-28 08:30:00\tVideo not found: \\x1b[2Jtalk",
    ]


def test_where_there_is_none_nothing_is_printed_but_to_a_terminal(own_database_url: str, tmp_path: Path) -> None:
    result = run(tmp_path / "data", "intake", "rejected", DATABASE_URL=own_database_url)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_terminal_gets_a_table(print_to_terminal: Callable[[str], str], filled_url: str) -> None:
    printed = print_to_terminal(filled_url).splitlines()
    assert [line.split()[:3] for line in printed] == [
        ["entry", "received", "(UTC)"],
        *([f"{number}-0", "2026-11-28", "08:30:00"] for number in (3, 2, 1)),
    ]
    assert printed[1].endswith("config is not [bold]valid[/] JSON")
    assert "\\x1b[2Jtalk" in printed[2]


def test_a_terminal_shows_that_there_is_none(print_to_terminal: Callable[[str], str], own_database_url: str) -> None:
    assert print_to_terminal(own_database_url) == "No request was rejected\n"


@pytest.mark.parametrize("limit", ["0", "-1", "many", "9" * 30, "³"])
def test_a_limit_that_cannot_be_is_refused(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["intake", "rejected", f"--limit={limit}"]) == 2
    assert "Invalid value for '--limit': " in capsys.readouterr().err


@pytest.fixture
def print_to_terminal(run_with: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Returns what the command prints to a terminal that has no colours."""

    def run_on(url: str) -> str:
        terminal = io.StringIO()
        monkeypatch.setattr(sys, "stdout", terminal)
        for name, value in {"TERM": "dumb", "COLUMNS": "120", "FORCE_COLOR": "1", "NO_COLOR": "1"}.items():
            monkeypatch.setenv(name, value)
        assert run_with(Settings(database_url=url), "intake", "rejected") == 0
        return terminal.getvalue()

    return run_on
