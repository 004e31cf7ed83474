"""Videos that are named by a URL: which video that is, or the one that it becomes."""

import hashlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from app.core.errors import FileMissing, InvalidInput
from app.core.media_types import VIDEO_EXTENSIONS
from app.database import Connection
from app.repositories import VideoRepository
from app.services.video_details import check_text, plain_identifier
from app.storage import Storage, video_folder

_LONGEST_URL = 4096
# What a film is called that nobody has named.
_SAYING_NOTHING = frozenset({"video", "clip", "output", "download", "untitled", "temp", "file", "movie", "media"})
_SIGNATURE = "X-Goog-"


@dataclass(frozen=True, slots=True)
class ResolvedUrl:
    """The video of a URL. `is_cached` is whether its film is here; `film_url` is where it lies, or will."""

    video: str
    film_url: str
    is_cached: bool

    @property
    def download_required(self) -> bool:
        return not self.is_cached


def check_video_url(url: str) -> None:
    """Raises `InvalidInput` for what nothing can be downloaded from."""
    check_text("video_url", url, _LONGEST_URL)
    try:
        parts = urlsplit(url)
        has_host, _ = bool(parts.hostname), parts.port
    except ValueError:
        raise InvalidInput("video_url cannot be read as an address") from None
    if not url.isprintable() or url != url.strip():
        raise InvalidInput("video_url holds a character that no address has")
    if parts.scheme not in ("http", "https", "gs"):
        raise InvalidInput("video_url must begin with http://, https:// or gs://")
    if not has_host:
        raise InvalidInput(f"video_url must name a {'bucket' if parts.scheme == 'gs' else 'host'}")
    if parts.path in ("", "/"):
        raise InvalidInput("video_url must name a file, and not only where files are")


def hash_url(url: str) -> str:
    """Return the SHA-256, in hex, of what addresses of the same film have in common.

    What follows the name of a film is a signature or a counter. Of any other address it says which film is meant, as
    in `watch?v=`, and there upper and lower case are not the same.
    """
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()
    path, query = unquote(parts.path), f"?{parts.query}" if parts.query else ""
    if PurePosixPath(path).suffix.lower() in VIDEO_EXTENSIONS:
        path, query = path.lower(), query.lower() if _SIGNATURE in query else ""
    return hashlib.sha256(f"{place}{path}{query}".encode("utf-8", "surrogateescape")).hexdigest()


def identifier_from_url(url: str) -> str:
    """Return what a video is called after the file that its URL names."""
    stem = PurePosixPath(urlsplit(url).path).stem
    if len(stem) > 1 and stem.lower() not in _SAYING_NOTHING and (plain := plain_identifier(stem)):
        return plain
    return f"video-{hash_url(url)[:8]}"


async def resolve_url(conn: Connection, storage: Storage, url: str, force: bool) -> ResolvedUrl:
    """Return the video of a URL, and where there is none, or `force` asks for another one, add it.

    The connection is in a transaction, which decides: the video appears with it. Whether its film is really here is
    then told by `look_for_film`.
    """
    base, wanted = identifier_from_url(url), hash_url(url)
    videos = VideoRepository(conn)
    await videos.lock_identifier(base)  # who asks for the same URL at the same time sees what came of this
    found = [known for known in await videos.list_sources(url, base) if hash_url(known.source_url) == wanted]
    if found and not force:
        latest = max(found, key=lambda known: (known.has_film, known.id))
        return ResolvedUrl(latest.identifier, latest.cloud_url, latest.has_film)
    return await _add(videos, storage, url, _names(base, skip_base=bool(found)))


async def look_for_film(storage: Storage, resolved: ResolvedUrl) -> ResolvedUrl:
    """Ask the storage whether the film is here. Raises `StorageUnavailable`."""
    try:
        await storage.stat(resolved.film_url)
    except FileMissing:
        return replace(resolved, is_cached=False)
    return replace(resolved, is_cached=True)


def _names(base: str, skip_base: bool) -> Iterator[str]:
    if not skip_base:
        yield base
    yield from (f"{base}-{second}" for second in count(int(time.time())))


async def _add(videos: VideoRepository, storage: Storage, url: str, names: Iterator[str]) -> ResolvedUrl:
    while True:
        name = next(names)
        # No two films share a name, so that none can be lost to the deletion of another.
        film_url = storage.url_of(f"{video_folder(name)}/{secrets.token_hex(8)}.mp4")
        if await videos.announce(name, url, film_url):
            return ResolvedUrl(name, film_url, is_cached=False)
