"""Text from outside, made fit to be stored."""


def clean(text: str) -> str:
    """Return a text without NUL and halves of surrogate pairs, which no database takes."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "")


def one_line(text: str, longest: int) -> str:
    """Return a text as one line of at most so many characters."""
    return " ".join(clean(text).split())[:longest].rstrip()
