"""Where the files of a video lie: in the library, in storage, or already in storage from another time."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.core.errors import FileMissing, StorageUnavailable
from app.database import Connection
from app.importer.preparing import LocalFile, PreparedVideo
from app.repositories import ClipRepository, ThumbnailRepository, VideoRepository
from app.storage import Storage


@dataclass(frozen=True, slots=True)
class StoredAddresses:
    """The addresses in a video's rows."""

    video: str | None = None
    thumbnail: str | None = None
    clips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Places:
    """Which addresses the rows of one video get.

    Of the addresses in its rows, and of its sound, that are the server's own, `held` are those with the file there and
    `lost` those without. `copies` tells for each address in the library the one that its copy has, `is_copying`
    whether the rows name the copies. `sent` are the copies that were just made, or found as they should be.
    """

    held: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    copies: Mapping[str, str] = field(default_factory=dict)
    is_copying: bool = False
    sent: frozenset[str] = frozenset()

    def url_of(self, file: LocalFile) -> str:
        return self.copies[file.url] if self.is_copying else file.url

    def keeps(self, stored: str, url: str) -> bool:
        """Whether a row keeps the address it has: what the server itself holds is replaced by no other file."""
        return stored != url and stored in self.held

    def count_in_place(self, prepared: PreparedVideo) -> int:
        """Return how many files of a video are served from where they lie in the library."""
        return 0 if self.is_copying else sum(self.copies[file.url] not in self.held for file in prepared.files())

    def rank(self, url: str) -> int:
        """How good an address is, the best the highest."""
        if url in self.held or (self.is_copying and url in self.copies.values()):
            return 3
        return 0 if url in self.lost else {"file": 2, "gs": 1}.get(url.partition(":")[0], 0)


async def read_addresses(conn: Connection, identifier: str) -> StoredAddresses:
    """Return the addresses that the rows of a video have, if there is such a video."""
    video = await VideoRepository(conn).get_by_identifier(identifier)
    if video is None:
        return StoredAddresses()
    thumbnail = await ThumbnailRepository(conn).get_by_video(video.id)
    clips = await ClipRepository(conn).list_by_video(video.id)
    return StoredAddresses(
        video.cloud_url, thumbnail.cloud_url if thumbnail else None, tuple(clip.cloud_url for clip in clips)
    )


class Finder:
    """Finds out where files lie already; it does not ask again for what a storage that is away holds."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._is_away = False

    async def find(self, prepared: PreparedVideo, stored: StoredAddresses, is_copying: bool) -> Places:
        copies = {file.url: self._storage.url_of(file.key) for file in prepared.files()}
        sound = copies[prepared.audio.url] if prepared.audio else None
        urls = (stored.video, stored.thumbnail, sound, *stored.clips)
        own = {url for url in urls if url is not None and self._storage.owns(url)}
        are_there = await asyncio.gather(*map(self._is_there, own))
        held = frozenset(url for url, is_there in zip(own, are_there, strict=True) if is_there)
        return Places(held, frozenset(own - held), copies, is_copying)

    async def _is_there(self, url: str) -> bool:
        """Whether a file is there; where nobody can tell, its row is left alone."""
        try:
            if not self._is_away:
                await self._storage.stat(url)
        except FileMissing:
            return False
        except StorageUnavailable:
            self._is_away = True
        return True
