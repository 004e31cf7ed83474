"""What consoles show of texts that they cannot encode, and of those that would steer them."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.cli import library_import
from app.cli.command_line import commands, main
from app.cli.run_output import open_run_progress
from app.core.config import Settings
from app.core.console import accept_any_text, open_console
from app.embedded import install
from app.importer.importing import ImportOptions
from app.models.runs import StageRecord, StageStatus
from app.models.stages import Stage
from tests.importer.legacy import LegacyLibrary, make_row

_ROOT = Path(__file__).resolve().parents[1]
_ENCODINGS = ("ascii", "latin-1", "cp1252", "cp437", "utf-8")


class Streams:
    """Standard output and error in one encoding, as strict as a terminal's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
        self._encoding = encoding
        self._written = io.BytesIO()
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(self._written, encoding=encoding, write_through=True))

    @property
    def text(self) -> str:
        return self._written.getvalue().decode(self._encoding)


def _commands(group: typer.Typer, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and action, as it is typed."""
    yield words
    for command in group.registered_commands:
        assert command.callback
        yield (*words, command.name or command.callback.__name__)
    for inner in group.registered_groups:
        assert inner.typer_instance
        assert isinstance(inner.name, str)
        yield from _commands(inner.typer_instance, (*words, inner.name))


@pytest.fixture
def library(tmp_path: Path) -> LegacyLibrary:
    return LegacyLibrary(tmp_path / "static")


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_every_command_prints_its_help(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    every = list(_commands(commands))
    assert len(every) > 20
    for words in every:
        streams = Streams(monkeypatch, encoding)
        assert main([*words, "--help"]) == 0, words
        assert "Usage: python -m app" in streams.text


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_the_settings_and_an_error_can_be_printed(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    streams = Streams(monkeypatch, encoding)
    assert main(["settings"]) == 0
    assert main(["import", "/nowhere/会議 …"]) == 2
    assert "DATABASE_URL" in streams.text
    assert "/nowhere/" in streams.text


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_an_import_prints_its_summary_whatever_its_files_are_called(
    monkeypatch: pytest.MonkeyPatch, encoding: str, library: LegacyLibrary, own_database_url: str, tmp_path: Path
) -> None:
    library.add_moments("会議 – Ü 🎬", make_row(0, 30), make_row(30, 20))
    settings = Settings(database_url=own_database_url, data_dir=tmp_path / "data")
    streams = Streams(monkeypatch, encoding)
    accept_any_text()
    report = tmp_path / "report.json"
    assert library_import.execute_import(settings, library.root, ImportOptions(), report) == 1
    assert "row 2: end_time is not greater than start_time" in streams.text
    assert report.is_file()


def test_what_an_encoding_lacks_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch, "latin-1")
    accept_any_text()
    open_console().print("“Ü” – 会 :smile: [red] \udcff …")
    assert streams.text == '"Ü" - \\u4f1a :smile: [red] \\udcff ...\n'


_HOSTILE = "\x1b]0;title\x07 \x1b[31m[red]\x9b2J\r\n2026-11-28 INFO forged\u202e"
_HARMLESS = r"\x1b]0;title\x07 \x1b[31m[red]\x9b2J\r\n2026-11-28 INFO forged\u202e"


def _print_table(console: Console) -> None:
    table = Table(box=None, show_header=False)
    table.add_row(_HOSTILE)
    console.print(table)


def _show_bar(console: Console) -> None:
    progress = open_run_progress(console)
    progress.show_stages({Stage.DOWNLOAD: StageRecord(StageStatus.FAILED, 1.0, 2.0, error=_HOSTILE)})
    progress.close()


@pytest.mark.parametrize(
    "show",
    [
        lambda console: console.print(_HOSTILE),
        lambda console: console.print(_HOSTILE, markup=False),
        lambda console: console.print(escape(_HOSTILE), markup=True),
        _print_table,
        _show_bar,
    ],
)
def test_no_text_steers_a_console(monkeypatch: pytest.MonkeyPatch, show: Callable[[Console], None]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    streams = Streams(monkeypatch, "utf-8")
    show(open_console())
    lines = [line for line in streams.text.split("\n") if line]
    assert len(lines) == 1
    assert _HARMLESS in lines[0]
    assert lines[0].isprintable()


def test_colours_and_bars_of_our_own_reach_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    streams = Streams(monkeypatch, "utf-8")
    _show_bar(open_console())
    assert "\x1b[" in streams.text
    assert "\x1b]" not in streams.text
    assert "\\x1b]0;title" in streams.text
    assert "\\x1b[?25l" not in streams.text


@pytest.mark.skipif(sys.platform == "win32", reason="There are no pseudo-terminals")
@pytest.mark.parametrize("arguments", [["import", f"/nowhere/{_HOSTILE}"], ["models", "show", "a", _HOSTILE]])
def test_an_error_of_the_command_line_does_not_steer_the_terminal(arguments: list[str], tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(_ROOT), "DATA_DIR": str(tmp_path), "PYTHONUTF8": "1"}
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        command = [sys.executable, "-m", "app", *arguments]
        ended = subprocess.run(command, stdout=theirs, stderr=theirs, env=environment, cwd=tmp_path, timeout=120)
        os.close(theirs)
        printed = terminal.read(65536).decode()
    assert ended.returncode == 2
    assert "\\x1b]0;title\\x07" in printed
    assert all(line.isprintable() for line in printed.split("\r\n"))


def test_words_of_pip_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    install._print_without_control_characters(f"ERROR: {_HOSTILE}")
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))


def test_the_report_is_written_before_the_summary_is_printed(
    monkeypatch: pytest.MonkeyPatch, library: LegacyLibrary, own_database_url: str, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise BrokenPipeError

    library.add_moments("talk", make_row())
    monkeypatch.setattr(library_import, "print_import_summary", fail)
    settings = Settings(database_url=own_database_url, data_dir=tmp_path / "data")
    report = tmp_path / "report.json"
    with pytest.raises(BrokenPipeError):
        library_import.execute_import(settings, library.root, ImportOptions(), report)
    assert report.is_file()
