"""Terminals and pipes of any encoding: what one cannot show is replaced, and never an error."""

import codecs
import io
import sys

from rich.console import Console

_HANDLER = "videomoments-replace"
_PLAIN = {"…": "...", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "\xa0": " "}


def open_console(*, stderr: bool = False) -> Console:
    """Return a console that prints lines as they are: no wrapping, no markup, no colours for numbers."""
    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)


def accept_any_text() -> None:
    """Have standard output and standard error replace characters that their encoding lacks."""
    codecs.register_error(_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test or a debugger may have put something else there
            stream.reconfigure(errors=_HANDLER)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Write dashes, quotes and dots plainly, and every other character as its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter) or _escape(letter) for letter in lost), error.end


def _escape(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode("ascii")
