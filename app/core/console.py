"""Terminals and pipes: control characters are escaped, and what an encoding lacks is replaced, and never an error."""

import codecs
import io
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from app.core.text import escape_controls

_HANDLER = "videomoments-replace"
_PLAIN = {"…": "...", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "\xa0": " "}


class _EscapingConsole(Console):
    """Escapes control characters, whatever is printed: no text from elsewhere steers the terminal or begins a line."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escape_controls(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable() or not segment.text.strip(" \n"):
                yield segment
            else:
                yield Segment(escape_controls(segment.text), segment.style)


def open_console(*, stderr: bool = False) -> Console:
    """Return a console that prints each text as one line, as it is: no wrapping, markup, or colours for numbers."""
    return _EscapingConsole(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)


def print_table(console: Console, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print rows as a table on a terminal, elsewhere as lines of cells with tabs between them, without a header."""
    if console.is_terminal:
        table = Table(*columns, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(Text(escape_controls(cell)) for cell in row))  # a cell may look like markup
        console.print(table)
        return
    for row in rows:
        console.file.write("\t".join(map(escape_controls, row)) + "\n")  # printing would make spaces of tabs


def accept_any_text() -> None:
    """Have standard output and error print a replacement for characters that their encoding lacks."""
    codecs.register_error(_HANDLER, _replace_unencodable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test or a debugger may have put something else there
            stream.reconfigure(errors=_HANDLER)


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(
        _PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in lost
    ), error.end
