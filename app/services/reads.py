"""The small reads that a player makes all the time: a video, its file, its moments, its transcript."""

import gzip
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from cachetools import LRUCache
from isal import igzip

from app.core.config import Settings
from app.core.errors import TranscriptNotFound, VideoNotFound
from app.database import Batches, Connection, OpenConnection
from app.repositories.media import MediaRepository
from app.repositories.moments import MomentRepository, MomentWithConfig
from app.repositories.transcripts import TranscriptRepository, TranscriptVersion
from app.repositories.videos import DetailedVideoCard, VideoRepository
from app.services.audio import AudioIndex
from app.services.identifiers import findable
from app.services.moments import show_under_originals

# Bytes of compressed transcripts that a process keeps: about 1,300 of 3,000 words each.
_CACHE_BYTES = 64 * 1024 * 1024
# 300 kB of JSON take 0.4 ms at this level and become 50 kB; zlib's fastest level takes 1.7 ms.
_COMPRESSION_LEVEL = 2

Shown = TypeVar("Shown")


@dataclass(frozen=True, slots=True)
class TranscriptDocument:
    """A transcript's JSON, compressed. It never changes under its key."""

    key: TranscriptVersion
    gzipped: bytes

    @property
    def plain(self) -> bytes:
        return gzip.decompress(self.gzipped)


class Reads:
    """The reads of one application, each shared with those who ask at the same time."""

    def __init__(self, open_connection: OpenConnection, settings: Settings, audio: AudioIndex) -> None:
        self.audio = audio
        self._open_connection = open_connection
        self._cards = Batches(open_connection, _load_cards, settings)
        self._files = Batches(open_connection, _load_files, settings)
        self._moments = Batches(open_connection, _load_moments, settings)
        self._transcript_keys = Batches(open_connection, _load_transcript_keys, settings)
        self._documents: LRUCache[str, TranscriptDocument] = LRUCache(
            _CACHE_BYTES, getsizeof=lambda document: len(document.gzipped)
        )

    async def get_video(self, identifier: str) -> DetailedVideoCard:
        """Raises `VideoNotFound`."""
        return _require(await self._cards.get(findable(identifier)))

    async def find_video_files(self, identifier: str) -> tuple[str, ...]:
        """Return the URLs of a video that can be played, the best one first: its own file is the last.

        Raises `VideoNotFound`.
        """
        return _require(await self._files.get(findable(identifier)))

    async def list_moments(self, identifier: str) -> list[MomentWithConfig]:
        """Return the moments in the order they were added. Raises `VideoNotFound`."""
        return _require(await self._moments.get(findable(identifier)))

    async def find_transcript(self, identifier: str) -> TranscriptVersion:
        """Return which transcript a video has now. Raises `VideoNotFound` and `TranscriptNotFound`."""
        key = _require(await self._transcript_keys.get(findable(identifier)))
        if key.id is None:
            raise TranscriptNotFound
        return key

    async def get_transcript(self, identifier: str) -> TranscriptDocument:
        """Return a video's transcript: read and compressed once, and then only looked up whether it is still the one.

        Raises `VideoNotFound` and `TranscriptNotFound`.
        """
        document = self._documents.get(identifier)
        if document is not None and document.key == await self.find_transcript(identifier):
            return document
        return await self._read_transcript(findable(identifier))

    async def _read_transcript(self, identifier: str) -> TranscriptDocument:
        async with aclosing(self._open_connection()) as connections:
            key, pieces = _require(await TranscriptRepository(await anext(connections)).read_document(identifier))
        if not pieces:
            raise TranscriptNotFound
        document = TranscriptDocument(key, igzip.compress(b"".join(pieces), _COMPRESSION_LEVEL))
        if len(document.gzipped) <= _CACHE_BYTES:
            self._documents[identifier] = document
        return document


def _require(found: Shown | None) -> Shown:
    if found is None:
        raise VideoNotFound
    return found


async def _load_cards(conn: Connection, identifiers: list[str]) -> dict[str, DetailedVideoCard]:
    return await VideoRepository(conn).get_cards(identifiers)


async def _load_files(conn: Connection, identifiers: list[str]) -> dict[str, tuple[str, ...]]:
    return await MediaRepository(conn).get_video_urls(identifiers)


async def _load_moments(conn: Connection, identifiers: list[str]) -> dict[str, list[MomentWithConfig]]:
    moments = await MomentRepository(conn).list_with_configs(identifiers)
    return {identifier: show_under_originals(of_video) for identifier, of_video in moments.items()}


async def _load_transcript_keys(conn: Connection, identifiers: list[str]) -> dict[str, TranscriptVersion]:
    return await TranscriptRepository(conn).get_versions(identifiers)
