"""Videos: listing and changing them, checks of their details, and the batched reads of single videos."""

import gzip
import re
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple, Self, cast
from urllib.parse import urlsplit

from cachetools import LRUCache
from isal import igzip

from app.core.config import Settings
from app.core.errors import InvalidInput, TranscriptNotFound, VideoNotFound, require_found
from app.core.masking import mask_secrets
from app.core.text import clean_line, find_control_character, fold_letters, has_invisible_characters, is_utf8
from app.database import BatchLoader, Connection, OpenConnection
from app.repositories.media import MediaUrlRepository
from app.repositories.moments import MomentRepository, MomentWithConfig
from app.repositories.transcripts import TranscriptRepository, TranscriptVersion
from app.repositories.videos import DetailedVideoCard, VideoCard, VideoChanges, VideoRepository
from app.services.media import ExtractedAudioIndex, VideosWithAudio
from app.services.moments import replace_parents_by_roots

SOURCE_URL_PATTERN = r"^(https?|gs)://[^\s/?#\[\]]+([/?#][^\x00-\x1f\x7f]*)?$"
_LONGEST_IDENTIFIER = 255
LONGEST_TITLE = 500
_LONGEST_SOURCE_URL = 4096
_LONGEST_DERIVED_IDENTIFIER = 50
_RESERVED_IN_URLS = frozenset("/\\?#%")  # browsers turn a backslash into a slash
# Bytes of compressed transcripts kept per process: about 1,300 of 3,000 words each.
_CACHE_BYTES = 64 * 1024 * 1024
# Size of the pages kept per process, in videos of about 600 bytes: 24 MB. A page costs as much as seven videos beside
# its own. The whole list is kept beside the pages, whatever its size.
_MAX_CACHED_VIDEOS = 40_000
_PAGE_COST_IN_VIDEOS = 7
# A transcript of 3,000 words, 283 kB of JSON, takes 0.40 ms at this level and becomes 67 kB; level 2 saves 1 % of the
# bytes and takes a tenth longer.
_COMPRESSION_LEVEL = 1


def check_video_identifier(identifier: str) -> None:
    """Raise `InvalidInput` for an identifier that is too long or that a URL cannot contain unescaped."""
    check_text_field("id", identifier, _LONGEST_IDENTIFIER)
    if _RESERVED_IN_URLS.intersection(identifier) or has_invisible_characters(identifier):
        raise InvalidInput("id must not hold / \\ ? # % or a control character")
    if identifier in (".", ".."):
        raise InvalidInput("id must not be . or ..")
    if identifier != identifier.strip():
        raise InvalidInput("id must not begin or end with a space")


def check_video_title(title: str) -> None:
    check_text_field("title", title, LONGEST_TITLE)
    if not clean_line(title).strip():
        raise InvalidInput("title must not be empty")


def check_source_url(url: str) -> None:
    check_text_field("source_url", url, _LONGEST_SOURCE_URL)
    try:
        is_url = re.fullmatch(SOURCE_URL_PATTERN, url) is not None and bool(urlsplit(url).hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise InvalidInput("source_url must be a URL that begins with http://, https:// or gs://")


def slugify_filename(filename_stem: str) -> str:
    """Return a video identifier of at most 50 characters, like `demo-talk`; '' for a name without letter or digit."""
    return "-".join(fold_letters(filename_stem).split())[:_LONGEST_DERIVED_IDENTIFIER].rstrip("-")


def check_text_field(field_name: str, text: str, max_length: int) -> None:
    """Raise `InvalidInput` for a text that is too long, has a control character or cannot be encoded as UTF-8."""
    if len(text) > max_length:
        raise InvalidInput(f"{field_name} must have at most {max_length} characters")
    if found := find_control_character(text):
        raise InvalidInput(f"{field_name} must not hold the character {found}")
    if not is_utf8(text):
        raise InvalidInput(f"{field_name} holds a character that cannot be stored")


async def update_video(conn: Connection, identifier: str, changes: VideoChanges) -> None:
    if (title := changes.get("title")) is not None:
        check_video_title(title)
        changes["title"] = clean_line(title)
    if (source_url := changes.get("source_url")) is not None:
        check_source_url(source_url)
    async with conn.transaction():
        videos = VideoRepository(conn)
        video = require_found(await videos.lock_video(identifier), VideoNotFound)
        if source_url is not None and source_url == mask_secrets(video.source_url or ""):
            changes.pop("source_url")  # the client sent back the masked form
        if not changes:
            return
        await videos.update(video.id, **changes)


class VideoListQuery(NamedTuple):
    """At most `limit` videos after the identifier `after`; without both, the whole list."""

    limit: int | None = None
    after: str = ""


@dataclass(frozen=True, slots=True)
class VideoListDocument:
    """Listed videos as JSON, and the SHA-256 of that; `last_identifier` is None where more videos cannot follow."""

    plain_json: bytes
    gzipped_json: bytes
    digest: str
    last_identifier: str | None

    @classmethod
    def from_json(cls, plain: bytes, last_identifier: str | None) -> Self:
        return cls(plain, igzip.compress(plain, _COMPRESSION_LEVEL), sha256(plain).hexdigest(), last_identifier)


@dataclass(slots=True)
class _ListedVideos:
    """The videos of a query in one version of the list, and their document for the audio that it was written with."""

    version: str | None
    cards: list[VideoCard]
    document: VideoListDocument | None = None
    audio: VideosWithAudio | None = None


class VideoListCache:
    """Keeps lists of videos as JSON until the list, or which audio is extracted, changes in any process.

    Each request looks the version of the list up, in a statement that concurrent requests share.
    """

    def __init__(self, open_connection: OpenConnection, settings: Settings, audio: ExtractedAudioIndex) -> None:
        self._audio = audio
        self._current = BatchLoader(open_connection, self._load_current_lists, settings)
        self._whole_list: _ListedVideos | None = None
        self._pages: LRUCache[VideoListQuery, _ListedVideos] = LRUCache(
            _MAX_CACHED_VIDEOS, getsizeof=lambda listed: len(listed.cards) + _PAGE_COST_IN_VIDEOS
        )

    async def get_document(
        self, query: VideoListQuery, write_json: Callable[[list[VideoCard], VideosWithAudio], bytes]
    ) -> VideoListDocument:
        """Return the current document of a query, which `write_json` writes where none is kept."""
        if "\0" in query.after:  # it would fail the statements of other requests, too
            raise InvalidInput("cursor must not hold the character U+0000")
        # Before a connection is taken, which must not wait for the storage.
        audio = await self._audio.get_videos_with_audio()
        listed = cast(_ListedVideos, await self._current.get(query))  # whatever it finds, it returns one
        if listed.document is None or listed.audio is not audio:
            last_identifier = listed.cards[-1].identifier if len(listed.cards) == query.limit else None
            plain = write_json(listed.cards, audio)
            listed.document, listed.audio = VideoListDocument.from_json(plain, last_identifier), audio
        return listed.document

    async def _load_current_lists(
        self, conn: Connection, queries: list[VideoListQuery]
    ) -> dict[VideoListQuery, _ListedVideos]:
        videos = VideoRepository(conn)
        lists = {query: self._get_kept(query) for query in queries}
        version = await videos.get_list_version() if any(lists.values()) else None
        current: dict[VideoListQuery, _ListedVideos] = {}
        for query, listed in lists.items():
            if listed is None or listed.version != version:
                listed = _ListedVideos(*await videos.list_cards(query.limit, query.after))
                self._keep(query, listed)
            current[query] = listed
        return current

    def _get_kept(self, query: VideoListQuery) -> _ListedVideos | None:
        return self._pages.get(query) if any(query) else self._whole_list

    def _keep(self, query: VideoListQuery, listed: _ListedVideos) -> None:
        if listed.version is None:  # of no videos, or in a transaction that has written
            return
        if not any(query):
            self._whole_list = listed
        elif len(listed.cards) + _PAGE_COST_IN_VIDEOS <= _MAX_CACHED_VIDEOS:
            self._pages[query] = listed


@dataclass(frozen=True, slots=True)
class TranscriptDocument:
    """A version of a transcript as JSON, compressed with gzip."""

    version: TranscriptVersion
    gzipped_json: bytes

    @property
    def plain_json(self) -> bytes:
        return gzip.decompress(self.gzipped_json)


class BatchedVideoReader:
    """Reads what a player needs of one video; requests that arrive together share one query."""

    def __init__(self, open_connection: OpenConnection, settings: Settings, audio: ExtractedAudioIndex) -> None:
        self.audio = audio
        self._open_connection = open_connection
        self._cards = BatchLoader(open_connection, lambda conn, ids: VideoRepository(conn).get_cards(ids), settings)
        self._files = BatchLoader(
            open_connection, lambda conn, ids: MediaUrlRepository(conn).get_video_file_urls(ids), settings
        )
        self._moments = BatchLoader(open_connection, _load_moments_of_videos, settings)
        self._transcript_versions = BatchLoader(
            open_connection, lambda conn, ids: TranscriptRepository(conn).get_versions_by_identifier(ids), settings
        )
        self._documents: LRUCache[str, TranscriptDocument] = LRUCache(
            _CACHE_BYTES, getsizeof=lambda document: len(document.gzipped_json)
        )

    async def get_video(self, video_identifier: str) -> DetailedVideoCard:
        return require_found(await self._cards.get(video_identifier), VideoNotFound)

    async def list_video_file_urls(self, video_identifier: str) -> tuple[str, ...]:
        """Return the URLs of a video's playable files, the preferred one first and its original file last."""
        return require_found(await self._files.get(video_identifier), VideoNotFound)

    async def list_moments(self, video_identifier: str) -> list[MomentWithConfig]:
        return require_found(await self._moments.get(video_identifier), VideoNotFound)

    async def get_transcript_version(self, video_identifier: str) -> TranscriptVersion:
        version = require_found(await self._transcript_versions.get(video_identifier), VideoNotFound)
        if version.id is None:
            raise TranscriptNotFound
        return version

    async def get_transcript(self, video_identifier: str) -> TranscriptDocument:
        document = self._documents.get(video_identifier)
        if document is not None and document.version == await self.get_transcript_version(video_identifier):
            return document
        async with aclosing(self._open_connection()) as connections:
            version, pieces = require_found(
                await TranscriptRepository(await anext(connections)).read_json_document(video_identifier), VideoNotFound
            )
        if not pieces:
            raise TranscriptNotFound
        document = TranscriptDocument(version, igzip.compress(b"".join(pieces), _COMPRESSION_LEVEL))
        if len(document.gzipped_json) <= _CACHE_BYTES:
            self._documents[video_identifier] = document
        return document


async def _load_moments_of_videos(conn: Connection, video_identifiers: list[str]) -> dict[str, list[MomentWithConfig]]:
    moments = await MomentRepository(conn).list_moments_with_configs(video_identifiers)
    return {identifier: replace_parents_by_roots(of_video) for identifier, of_video in moments.items()}
