"""Videos that are named by a URL: which video that is, or the one that it becomes."""

import hashlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from app.core.errors import FileMissing, InvalidInput
from app.core.text import clean_line
from app.database import Connection
from app.models.video import title_from_name
from app.repositories import VideoRepository
from app.services.video_addresses import canonical_url, decode_escapes, find_known_video
from app.services.video_details import check_text, plain_identifier
from app.storage import Storage, video_folder

_LONGEST_URL = 4096
_LONGEST_TITLE = 500
# What a film is called that nobody has named.
_SAYING_NOTHING = frozenset({"video", "clip", "output", "download", "untitled", "temp", "file", "movie", "media"})


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
    """Return the SHA-256, in hex, of the canonical form of a URL: all addresses of a video have the same."""
    return hashlib.sha256(canonical_url(url).encode("utf-8", "surrogateescape")).hexdigest()


def identifier_from_url(url: str) -> str:
    """Return what a video is called after the file that its URL names. Two videos may be called alike."""
    if (known := find_known_video(url)) is not None:
        return plain_identifier("-".join(known))
    stem = _stem_of(url)
    if _says_something(stem) and (plain := plain_identifier(stem)):
        return plain
    return f"video-{hash_url(url)[:8]}"


def title_from_url(url: str) -> str | None:
    """Return what a video is titled after the file that its URL names, or None where that says nothing."""
    stem = clean_line(unquote(_stem_of(url)))
    if find_known_video(url) is not None or not _says_something(stem):
        return None
    return title_from_name(stem)[:_LONGEST_TITLE] or None


def _stem_of(url: str) -> str:
    """Return the name of a URL's file without its extension; what is escaped in ASCII stays so."""
    return PurePosixPath(decode_escapes(urlsplit(url).path)).stem


def _says_something(stem: str) -> bool:
    return len(stem) > 1 and stem.lower() not in _SAYING_NOTHING


def _list_names(url: str) -> list[str]:
    """Return what the videos may be called that were added by any form of a URL; a new one gets the first."""
    canonical, known = canonical_url(url), find_known_video(url)
    stems = [PurePosixPath(unquote(urlsplit(each).path)).stem for each in (url, canonical)]
    if known is not None:
        stems.append(known[1])
    names = [identifier_from_url(url), identifier_from_url(canonical), *map(plain_identifier, stems)]
    return [name for name in dict.fromkeys(names) if name]


async def resolve_url(
    conn: Connection, storage: Storage, url: str, force: bool, preferred_name: str = ""
) -> ResolvedUrl:
    """Return the video of a URL, and where there is none, or `force` asks for another one, add it.

    A new video is called `preferred_name` where that is given and free, and one of several that is called so is chosen.
    The connection is in a transaction, which decides: the video appears with it. Whether its film is really here is
    then told by `look_for_film`.
    """
    names, wanted = [*_list_names(url), *([preferred_name] if preferred_name else [])], canonical_url(url)
    videos = VideoRepository(conn)
    await videos.lock_source(wanted)  # who asks for the same URL at the same time sees what came of this
    listed = [known for name in names for known in await videos.list_sources([url, wanted], name)]
    found = [known for known in listed if _leads_to(known.source_url, wanted)]
    if found and not force:
        latest = max(found, key=lambda known: (known.identifier == preferred_name, known.has_film, known.id))
        return ResolvedUrl(latest.identifier, latest.cloud_url, latest.has_film)
    free_names = _free_names(names[0], skip_base=bool(found))
    return await _add(videos, storage, url, chain([preferred_name] if preferred_name else [], free_names))


async def look_for_film(storage: Storage, resolved: ResolvedUrl) -> ResolvedUrl:
    """Ask the storage whether the film is here. Raises `StorageUnavailable`."""
    try:
        await storage.stat(resolved.film_url)
    except FileMissing:
        return replace(resolved, is_cached=False)
    return replace(resolved, is_cached=True)


def _leads_to(source_url: str, wanted: str) -> bool:
    try:
        return canonical_url(source_url) == wanted
    except ValueError:  # what an import found is not always an address
        return False


def _free_names(base: str, skip_base: bool) -> Iterator[str]:
    if not skip_base:
        yield base
    yield from (f"{base}-{second}" for second in count(int(time.time())))


async def _add(videos: VideoRepository, storage: Storage, url: str, names: Iterator[str]) -> ResolvedUrl:
    while True:
        name = next(names)
        # No two films share a name, so that none can be lost to the deletion of another.
        film_url = storage.url_of(f"{video_folder(name)}/{secrets.token_hex(8)}.mp4")
        if await videos.insert_pending(name, url, film_url, title_from_url(url)):
            return ResolvedUrl(name, film_url, is_cached=False)
