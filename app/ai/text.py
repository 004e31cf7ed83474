"""Text from outside, made fit to be stored."""

from app.core.text import clean_line, to_nfc


def clean(text: str) -> str:
    """Return a text in NFC and without NUL and halves of surrogate pairs, which no database takes."""
    return to_nfc(text.encode("utf-8", "replace").decode().replace("\x00", ""))


def one_line(text: str, longest: int) -> str:
    """Return a text as one line of at most so many characters, without invisible ones."""
    return " ".join(clean_line(clean(text)).split())[:longest].rstrip()
