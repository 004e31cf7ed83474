"""Consoles that are not UTF-8."""

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.__main__ import _parser, main
from app.core.config import Settings
from app.core.console import accept_any_text, open_console
from app.library import command
from tests.library.legacy import LegacyLibrary, make_row

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


def _commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and action, as it is typed."""
    yield words
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _commands(inner, (*words, name))


@pytest.fixture
def library(tmp_path: Path) -> LegacyLibrary:
    return LegacyLibrary(tmp_path / "static")


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_every_command_prints_its_help(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    commands = list(_commands(_parser()))
    assert len(commands) > 10
    for words in commands:
        streams = Streams(monkeypatch, encoding)
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        assert ended.value.code == 0, words
        assert "usage: python -m app" in streams.text


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_the_settings_and_an_error_can_be_printed(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    streams = Streams(monkeypatch, encoding)
    assert main(["settings"]) == 0
    with pytest.raises(SystemExit):
        main(["import", "/nowhere/会議 …"])
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
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    report = tmp_path / "report.json"
    assert command.run(parser.parse_args([str(library.root), "--report", str(report)]), settings) == 1
    assert "row 2: end_time is not greater than start_time" in streams.text
    assert report.is_file()


def test_what_an_encoding_lacks_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch, "latin-1")
    accept_any_text()
    open_console().print("“Ü” – 会 :smile: [red] \udcff …")
    assert streams.text == '"Ü" - \\u4f1a :smile: [red] \\udcff ...\n'


def test_the_report_is_written_before_the_summary_is_printed(
    monkeypatch: pytest.MonkeyPatch, library: LegacyLibrary, own_database_url: str, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise BrokenPipeError

    library.add_moments("talk", make_row())
    monkeypatch.setattr(command, "print_summary", fail)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    options = parser.parse_args([str(library.root), "--report", str(tmp_path / "report.json")])
    with pytest.raises(BrokenPipeError):
        command.run(options, Settings(database_url=own_database_url, data_dir=tmp_path / "data"))
    assert (tmp_path / "report.json").is_file()
