"""Videos: listing them, the details that clients give, and the shared reads of single videos."""

import gzip
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self, TypeVar
from urllib.parse import urlsplit

from cachetools import LRUCache
from isal import igzip

from app.core.config import Settings
from app.core.errors import InvalidInput, TranscriptNotFound, VideoNotFound
from app.core.masking import mask_secrets
from app.core.media_types import MEDIA_EXTENSIONS
from app.core.text import clean_line, find_control, fold_letters, has_invisible_characters, is_utf8, to_nfc
from app.database import BatchLoader, Connection, OpenConnection
from app.models.videos import make_title_from_file_name
from app.repositories.media import MediaRepository
from app.repositories.moments import MomentRepository, MomentWithConfig
from app.repositories.transcripts import TranscriptRepository, TranscriptVersion
from app.repositories.videos import DetailedVideoCard, VideoCard, VideoChanges, VideoRepository
from app.services.media import AudioIndex
from app.services.moments import show_under_roots

SOURCE_URL_PATTERN = r"^(https?|gs)://[^\s/?#\[\]]+([/?#][^\x00-\x1f\x7f]*)?$"
_LONGEST_IDENTIFIER = 255
_LONGEST_TITLE = 500
_LONGEST_SOURCE_URL = 4096
_LONGEST_FILENAME = 1024
_LONGEST_DERIVED_IDENTIFIER = 50
_RESERVED_IN_URLS = frozenset("/\\?#%")  # browsers turn a backslash into a slash
# Rows per query when a client lists the whole library, so that other requests are served in between.
_BATCH = 2000
# Bytes of compressed transcripts kept per process: about 1,300 of 3,000 words each.
_CACHE_BYTES = 64 * 1024 * 1024
# 300 kB of JSON take 0.4 ms at this level and become 50 kB; zlib's fastest level takes 1.7 ms.
_COMPRESSION_LEVEL = 2
FoundT = TypeVar("FoundT")


@dataclass(frozen=True, slots=True)
class VideoDetails:
    """Details of a video that a client sends, in the form that is stored; empty texts are unset."""

    filename: str = ""
    identifier: str = ""
    title: str = ""
    source_url: str = ""

    @classmethod
    def from_client(cls, filename: str, identifier: str, title: str, source_url: str) -> Self:
        """Raises `InvalidInput` for a control character in the file name or the title."""
        for name, text in (("The file's name", filename), ("title", title)):
            if found := find_control(text):
                raise InvalidInput(f"{name} must not hold the character {found}")
        return cls(filename, identifier, title, source_url)

    def __post_init__(self) -> None:
        object.__setattr__(self, "filename", clean_line(self.filename))
        object.__setattr__(self, "identifier", to_nfc(self.identifier))
        object.__setattr__(self, "title", clean_line(self.title) or self.title)

    def check(self) -> None:
        check_text("The file's name", self.filename, _LONGEST_FILENAME)
        if self.identifier:
            check_identifier(self.identifier)
        if self.title:
            check_video_title(self.title)
        if self.source_url:
            check_source_url(self.source_url)

    @property
    def derived_identifier(self) -> str:
        return slugify(self._stem)

    @property
    def stored_title(self) -> str | None:
        return (self.title or make_title_from_file_name(self._stem))[:_LONGEST_TITLE] or None

    @property
    def extension(self) -> str:
        extension = self._split_name()[1]
        return extension if extension in MEDIA_EXTENSIONS else ""

    @property
    def _stem(self) -> str:
        return self._split_name()[0]

    def _split_name(self) -> tuple[str, str]:
        name = self.filename.replace("\\", "/").rpartition("/")[2]
        stem, dot, extension = name.rpartition(".")
        return (stem, f".{extension.lower()}") if dot else (name, "")


def random_identifier() -> str:
    return f"video-{secrets.token_hex(4)}"


def check_identifier(identifier: str) -> None:
    """Raise `InvalidInput` for an identifier that a URL cannot contain unescaped."""
    check_text("id", identifier, _LONGEST_IDENTIFIER)
    if _RESERVED_IN_URLS.intersection(identifier) or has_invisible_characters(identifier):
        raise InvalidInput("id must not hold / \\ ? # % or a control character")
    if identifier in (".", ".."):
        raise InvalidInput("id must not be . or ..")
    if identifier != identifier.strip():
        raise InvalidInput("id must not begin or end with a space")


def check_video_title(title: str) -> None:
    check_text("title", title, _LONGEST_TITLE)
    if not clean_line(title).strip():
        raise InvalidInput("title must not be empty")


def check_source_url(url: str) -> None:
    check_text("source_url", url, _LONGEST_SOURCE_URL)
    try:
        is_url = re.fullmatch(SOURCE_URL_PATTERN, url) is not None and bool(urlsplit(url).hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise InvalidInput("source_url must be a URL that begins with http://, https:// or gs://")


def slugify(stem: str) -> str:
    """Return an identifier from a file name; '' without any letter or digit. Different names may give the same."""
    return "-".join(fold_letters(stem).split())[:_LONGEST_DERIVED_IDENTIFIER].rstrip("-")


def check_text(name: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise InvalidInput(f"{name} must have at most {longest} characters")
    if found := find_control(text):
        raise InvalidInput(f"{name} must not hold the character {found}")
    if not is_utf8(text):
        raise InvalidInput(f"{name} holds a character that cannot be stored")


async def list_videos(conn: Connection, limit: int | None, after: str) -> list[VideoCard]:
    """Return at most `limit` videos after the identifier `after`; all videos if `limit` is None."""
    videos = VideoRepository(conn)
    if limit is not None:
        return await videos.list_cards(limit, after)
    return [card async for batch in _iterate_batches(videos, after) for card in batch]


async def _iterate_batches(videos: VideoRepository, after: str) -> AsyncIterator[list[VideoCard]]:
    while True:
        batch = await videos.list_cards(_BATCH, after)
        yield batch
        if len(batch) < _BATCH:
            return
        after = batch[-1].identifier


async def update_video(conn: Connection, identifier: str, changes: VideoChanges) -> None:
    """Change title or source_url; None clears it. Raises `VideoNotFound` and `InvalidInput`."""
    if (title := changes.get("title")) is not None:
        check_video_title(title)
        changes["title"] = clean_line(title)
    if (source_url := changes.get("source_url")) is not None:
        check_source_url(source_url)
    async with conn.transaction():
        videos = VideoRepository(conn)
        video = await videos.lock_video(identifier)
        if video is None:
            raise VideoNotFound
        if source_url is not None and source_url == mask_secrets(video.source_url or ""):
            changes.pop("source_url")  # the client sent back the masked form
        if not changes:
            return
        await videos.update(video.id, **changes)


@dataclass(frozen=True, slots=True)
class TranscriptDocument:
    """A transcript as compressed JSON; immutable for its key."""

    key: TranscriptVersion
    gzipped: bytes

    @property
    def plain(self) -> bytes:
        return gzip.decompress(self.gzipped)


class VideoReader:
    """The frequent reads of a player; requests that arrive together share one query. Each raises `VideoNotFound`."""

    def __init__(self, open_connection: OpenConnection, settings: Settings, audio: AudioIndex) -> None:
        self.audio = audio
        self._open_connection = open_connection
        self._cards = BatchLoader(open_connection, _load_cards, settings)
        self._files = BatchLoader(open_connection, _load_files, settings)
        self._moments = BatchLoader(open_connection, _load_moments, settings)
        self._transcript_keys = BatchLoader(open_connection, _load_transcript_keys, settings)
        self._documents: LRUCache[str, TranscriptDocument] = LRUCache(
            _CACHE_BYTES, getsizeof=lambda document: len(document.gzipped)
        )

    async def get_video(self, identifier: str) -> DetailedVideoCard:
        return _require_video(await self._cards.get(identifier))

    async def find_video_files(self, identifier: str) -> tuple[str, ...]:
        """Return the URLs of a video's playable files, the preferred one first and its original file last."""
        return _require_video(await self._files.get(identifier))

    async def list_moments(self, identifier: str) -> list[MomentWithConfig]:
        return _require_video(await self._moments.get(identifier))

    async def find_transcript(self, identifier: str) -> TranscriptVersion:
        key = _require_video(await self._transcript_keys.get(identifier))
        if key.id is None:
            raise TranscriptNotFound
        return key

    async def get_transcript(self, identifier: str) -> TranscriptDocument:
        """Return a video's transcript from the cache if that is the current version. Raises `TranscriptNotFound`."""
        document = self._documents.get(identifier)
        if document is not None and document.key == await self.find_transcript(identifier):
            return document
        return await self._read_transcript(identifier)

    async def _read_transcript(self, identifier: str) -> TranscriptDocument:
        async with aclosing(self._open_connection()) as connections:
            key, pieces = _require_video(
                await TranscriptRepository(await anext(connections)).read_json_document(identifier)
            )
        if not pieces:
            raise TranscriptNotFound
        document = TranscriptDocument(key, igzip.compress(b"".join(pieces), _COMPRESSION_LEVEL))
        if len(document.gzipped) <= _CACHE_BYTES:
            self._documents[identifier] = document
        return document


def _require_video(found: FoundT | None) -> FoundT:
    if found is None:
        raise VideoNotFound
    return found


async def _load_cards(conn: Connection, identifiers: list[str]) -> dict[str, DetailedVideoCard]:
    return await VideoRepository(conn).get_cards(identifiers)


async def _load_files(conn: Connection, identifiers: list[str]) -> dict[str, tuple[str, ...]]:
    return await MediaRepository(conn).get_video_urls(identifiers)


async def _load_moments(conn: Connection, identifiers: list[str]) -> dict[str, list[MomentWithConfig]]:
    moments = await MomentRepository(conn).list_moments_with_configs(identifiers)
    return {identifier: show_under_roots(of_video) for identifier, of_video in moments.items()}


async def _load_transcript_keys(conn: Connection, identifiers: list[str]) -> dict[str, TranscriptVersion]:
    return await TranscriptRepository(conn).get_versions_by_identifier(identifiers)
