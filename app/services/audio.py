"""Which videos have their sound extracted, found out for all at once."""

import asyncio
import logging
import os
import time
from collections.abc import Iterable
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import VideoMomentsError
from app.core.text import to_nfc
from app.storage import Storage, name_of

_log = logging.getLogger(__name__)

# How long a listing is good for, and how long a request waits for one.
_FRESH_SECONDS = 1.0
_PATIENCE_SECONDS = 1.5
_EXTENSION = ".wav"


@dataclass(frozen=True, slots=True)
class ExtractedAudio:
    """The videos whose sound is there: `identifier in audio`."""

    folders: frozenset[str] = frozenset()  # of the server's own files, by `name_of`
    identifiers: frozenset[str] = frozenset()  # of imported libraries

    def __bool__(self) -> bool:
        return bool(self.folders or self.identifiers)

    def __contains__(self, identifier: str) -> bool:
        return identifier in self.identifiers or (bool(self.folders) and name_of(identifier) in self.folders)


class AudioIndex:
    """Lists the sound of all videos, once for those who ask within a second."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known = ExtractedAudio()
        self._fresh_until = float("-inf")
        self._listing: asyncio.Task[None] | None = None
        self._patience_ends = 0.0
        self._wishes = self._fulfilled = 0

    async def get(self) -> ExtractedAudio:
        """Return what is there, or, where that cannot be found out in time, what was there when it last could."""
        if time.monotonic() >= self._fresh_until:
            await self._refresh()
        if self._wishes != self._fulfilled:  # the listing had begun before the last wish
            await self._refresh()
        return self._known

    def forget(self, identifier: str) -> None:
        """Look again at the next request, where the sound of a video that has some is not known yet."""
        if identifier not in self._known:
            self._fresh_until = float("-inf")
            self._wishes += 1

    async def _refresh(self) -> None:
        is_new = self._listing is None or self._listing.done()
        if self._listing is None or is_new:
            self._listing = asyncio.create_task(
                self._list(), context=Context()
            )  # of all who share it, so of no request
            self._patience_ends = time.monotonic() + _PATIENCE_SECONDS
        _, late = await asyncio.wait({self._listing}, timeout=max(self._patience_ends - time.monotonic(), 0))
        if late and is_new:
            _log.warning("The storage does not say in time which videos have sound")

    async def _list(self) -> None:
        wishes = self._wishes
        try:
            folders = await self._storage.list_names("audio")
            identifiers = await asyncio.to_thread(_scan, self._storage)
            self._known = ExtractedAudio(frozenset(folders), frozenset(identifiers))
        except (VideoMomentsError, OSError) as error:
            _log.warning("The storage does not say which videos have sound: %s", error)
        self._fulfilled = wishes
        self._fresh_until = time.monotonic() + _FRESH_SECONDS if wishes == self._wishes else float("-inf")


def _scan(storage: Storage) -> set[str]:
    return {identifier for library in storage.libraries.list() for identifier in _list_audio(library / "audios")}


def _list_audio(folder: Path) -> Iterable[str]:
    try:
        with os.scandir(folder) as entries:
            return [
                to_nfc(entry.name.removesuffix(_EXTENSION))
                for entry in entries
                if entry.name.endswith(_EXTENSION) and entry.is_file()
            ]
    except OSError:  # most libraries have none
        return []
