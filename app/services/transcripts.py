"""Transcripts as ready, compressed answers. One never changes under its id, so an id is all there is to look up."""

import gzip
from dataclasses import dataclass

from cachetools import LRUCache
from isal import igzip

from app.core.errors import TranscriptNotFound, VideoNotFound
from app.database import Connection
from app.repositories.views import TranscriptKey, ViewRepository

# Bytes of compressed transcripts that a process keeps: about 1,000 of an hour each.
_CACHE_BYTES = 64 * 1024 * 1024
# A transcript of 285 kB takes 0.4 ms at this level and becomes 50 kB; zlib needs four times that for as much.
_COMPRESSION_LEVEL = 2

_documents: LRUCache[TranscriptKey, bytes] = LRUCache(_CACHE_BYTES, getsizeof=len)


@dataclass(frozen=True, slots=True)
class TranscriptDocument:
    """A transcript's JSON. `key` names this very transcript for ever."""

    key: TranscriptKey
    gzipped: bytes

    @property
    def plain(self) -> bytes:
        return gzip.decompress(self.gzipped)


async def find_transcript(conn: Connection, identifier: str) -> TranscriptKey:
    """Return which transcript a video has now. Raises `VideoNotFound` and `TranscriptNotFound`."""
    found = await ViewRepository(conn).get_transcript_key(identifier)
    if found is None:
        raise VideoNotFound
    if found.id is None:
        raise TranscriptNotFound
    return found


async def read_transcript(conn: Connection, key: TranscriptKey) -> TranscriptDocument:
    """Return the document of `key`. Raises `TranscriptNotFound` where it was replaced in this very moment."""
    gzipped = _documents.get(key)
    if gzipped is None:
        parts = await ViewRepository(conn).read_transcript(key)
        if parts is None:
            raise TranscriptNotFound
        gzipped = igzip.compress(b"".join(parts), _COMPRESSION_LEVEL)
        if len(gzipped) <= _CACHE_BYTES:
            _documents[key] = gzipped
    return TranscriptDocument(key, gzipped)
