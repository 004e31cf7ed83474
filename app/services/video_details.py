"""What a video may be called, and where it may be said to come from."""

import re
import secrets
import unicodedata
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.core.errors import InvalidInput
from app.core.media_types import MEDIA_EXTENSIONS

SOURCE_URL_PATTERN = r"^(https?|gs)://[^\s/?#\[\]]+([/?#][^\x00-\x1f\x7f]*)?$"

_LONGEST_IDENTIFIER = 255
_LONGEST_TITLE = 500
_LONGEST_URL = 4096
_LONGEST_FILENAME = 1024
_LONGEST_MADE_IDENTIFIER = 50
_WITHOUT_ESCAPE = frozenset("/\\?#%")  # a browser makes a slash of a backslash
_CONTROLS = frozenset({"Cc", "Zl", "Zp"})
_DIRECTIONS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


@dataclass(frozen=True, slots=True)
class VideoDetails:
    """What a client says of a video that it sends; an empty text says nothing."""

    filename: str = ""
    identifier: str = ""
    title: str = ""
    source_url: str = ""

    def check(self) -> None:
        """Raises `InvalidInput` for the first that cannot be stored."""
        check_text("The file's name", self.filename, _LONGEST_FILENAME)
        if self.identifier:
            check_identifier(self.identifier)
        if self.title:
            check_title(self.title)
        if self.source_url:
            check_source_url(self.source_url)

    @property
    def known_identifier(self) -> str:
        """The identifier that the video gets, or '' where one has to be invented."""
        return self.identifier or plain_identifier(self._stem)

    @property
    def shown_title(self) -> str | None:
        return (self.title or " ".join(self._stem.split()))[:_LONGEST_TITLE] or None

    @property
    def extension(self) -> str:
        """The extension of the file's name where it is one of a video or of audio, else ''."""
        extension = self._split_name()[1]
        return extension if extension in MEDIA_EXTENSIONS else ""

    @property
    def _stem(self) -> str:
        return self._split_name()[0]

    def _split_name(self) -> tuple[str, str]:
        """Return the name without folders in two parts: `.mp4` is an extension without a stem."""
        name = self.filename.replace("\\", "/").rpartition("/")[2]
        stem, dot, extension = name.rpartition(".")
        return (stem, f".{extension.lower()}") if dot else (name, "")


def invent_identifier() -> str:
    """Return a name for a video whose file has none."""
    return f"video-{secrets.token_hex(4)}"


def check_identifier(identifier: str) -> None:
    """Raises `InvalidInput` for a name that an address cannot hold as it is."""
    check_text("id", identifier, _LONGEST_IDENTIFIER)
    if _WITHOUT_ESCAPE.intersection(identifier) or any(map(_controls, identifier)):
        raise InvalidInput("id must not hold / \\ ? # % or a control character")
    if identifier in (".", ".."):
        raise InvalidInput("id must not be . or ..")
    if identifier != identifier.strip():
        raise InvalidInput("id must not begin or end with a space")


def check_title(title: str) -> None:
    """Raises `InvalidInput`."""
    check_text("title", title, _LONGEST_TITLE)
    if not title.strip():
        raise InvalidInput("title must not be empty")


def check_source_url(url: str) -> None:
    """Raises `InvalidInput`."""
    check_text("source_url", url, _LONGEST_URL)
    try:
        is_url = re.fullmatch(SOURCE_URL_PATTERN, url) is not None and bool(urlsplit(url).hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise InvalidInput("source_url must be a URL that begins with http://, https:// or gs://")


def plain_identifier(stem: str) -> str:
    """Return what an identifier keeps of a file's name: '' where that has no letter from a to z and no digit."""
    plain = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    return plain[:_LONGEST_MADE_IDENTIFIER].rstrip("-")


def check_text(name: str, text: str, longest: int) -> None:
    """Raises `InvalidInput` for a text that is too long or cannot be stored."""
    if len(text) > longest:
        raise InvalidInput(f"{name} must have at most {longest} characters")
    if "\0" in text or any("\ud800" <= each <= "\udfff" for each in text):
        raise InvalidInput(f"{name} holds a character that cannot be stored")


def _controls(character: str) -> bool:
    """Whether a character is none that is read: one of control, of a line's end, or of the direction of writing."""
    return unicodedata.category(character) in _CONTROLS or unicodedata.bidirectional(character) in _DIRECTIONS
