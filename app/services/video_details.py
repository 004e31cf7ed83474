"""What a video may be called, and where it may be said to come from."""

import re
import secrets
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from app.core.errors import InvalidInput
from app.core.media_types import MEDIA_EXTENSIONS
from app.core.text import clean_line, find_control, fold_letters, has_unseen, is_utf8, to_nfc
from app.models.video import title_from_name

SOURCE_URL_PATTERN = r"^(https?|gs)://[^\s/?#\[\]]+([/?#][^\x00-\x1f\x7f]*)?$"

_LONGEST_IDENTIFIER = 255
_LONGEST_TITLE = 500
_LONGEST_URL = 4096
_LONGEST_FILENAME = 1024
_LONGEST_MADE_IDENTIFIER = 50
_WITHOUT_ESCAPE = frozenset("/\\?#%")  # a browser makes a slash of a backslash


@dataclass(frozen=True, slots=True)
class VideoDetails:
    """What a client says of a video that it sends, in the form in which it is stored; an empty text says nothing."""

    filename: str = ""
    identifier: str = ""
    title: str = ""
    source_url: str = ""

    @classmethod
    def from_client(cls, filename: str, identifier: str, title: str, source_url: str) -> Self:
        """Raises `InvalidInput` for a name or a title with a control character, which that of a file here loses."""
        for name, text in (("The file's name", filename), ("title", title)):
            if found := find_control(text):
                raise InvalidInput(f"{name} must not hold the character {found}")
        return cls(filename, identifier, title, source_url)

    def __post_init__(self) -> None:
        object.__setattr__(self, "filename", clean_line(self.filename))
        object.__setattr__(self, "identifier", to_nfc(self.identifier))
        object.__setattr__(self, "title", clean_line(self.title) or self.title)

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
    def derived_identifier(self) -> str:
        """What the video is called after its file, or '' where the name of that has no letter and no digit."""
        return plain_identifier(self._stem)

    @property
    def stored_title(self) -> str | None:
        return (self.title or title_from_name(self._stem))[:_LONGEST_TITLE] or None

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
    if _WITHOUT_ESCAPE.intersection(identifier) or has_unseen(identifier):
        raise InvalidInput("id must not hold / \\ ? # % or a control character")
    if identifier in (".", ".."):
        raise InvalidInput("id must not be . or ..")
    if identifier != identifier.strip():
        raise InvalidInput("id must not begin or end with a space")


def check_title(title: str) -> None:
    """Raises `InvalidInput`."""
    check_text("title", title, _LONGEST_TITLE)
    if not clean_line(title).strip():
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
    """Return what an identifier keeps of a file's name: '' where that has no letter and no digit.

    Two names may keep the same: what comes of it is a name to begin with, and never an identity.
    """
    return "-".join(fold_letters(stem).split())[:_LONGEST_MADE_IDENTIFIER].rstrip("-")


def check_text(name: str, text: str, longest: int) -> None:
    """Raises `InvalidInput` for a text that is too long or holds a control character."""
    if len(text) > longest:
        raise InvalidInput(f"{name} must have at most {longest} characters")
    if found := find_control(text):
        raise InvalidInput(f"{name} must not hold the character {found}")
    if not is_utf8(text):
        raise InvalidInput(f"{name} holds a character that cannot be stored")
