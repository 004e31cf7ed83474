"""Which stored file an address means. That of a video is one of the `Reads`."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import quote

from app.core.errors import ClipNotFound, FileMissing, MomentNotFound, VideoNotFound
from app.core.text import list_forms
from app.database import Connection
from app.repositories.media import MediaRepository
from app.services.identifiers import findable
from app.storage import OpenFile, Storage

_CLIP_NAME = re.compile(r"(.+)_clip\.(mp4|m4a)", re.DOTALL)
# More characters than the longest identifiers of a video and of a moment make with all that is around them.
_LONGEST_CLIP_NAME = 300


@asynccontextmanager
async def open_first(storage: Storage, urls: Sequence[str]) -> AsyncIterator[OpenFile]:
    """Open the first of some files that is there. Raises `FileMissing` where none is, and `StorageUnavailable`."""
    async with AsyncExitStack() as stack:
        for url in urls[:-1]:
            with suppress(FileMissing):
                file = await stack.enter_async_context(storage.opened(url))
                break
        else:
            file = await stack.enter_async_context(storage.opened(urls[-1]))
        yield file


async def find_clip_file(conn: Connection, video: str, moment: str) -> str:
    """Return the URL of a moment's clip. Raises `VideoNotFound`, `MomentNotFound` and `ClipNotFound`."""
    place = await MediaRepository(conn).get_clip_location(findable(video), findable(moment))
    if place is None:
        raise VideoNotFound
    if not place.has_moment:
        raise MomentNotFound
    if place.url is None:
        raise ClipNotFound
    return place.url


async def find_clip_by_name(conn: Connection, name: str) -> str:
    """Return the URL of the clip that the previous backend called `{video}_{moment}_clip.mp4`. Raises `ClipNotFound`.

    An import may have given the moment another identifier; then the file has still its old name. A clip of audio is
    found by `….mp4` and by `….m4a`.
    """
    match = _CLIP_NAME.fullmatch(name)
    if match is None or len(name) > _LONGEST_CLIP_NAME or not findable(name):
        raise ClipNotFound
    clip = match[1]
    videos = [clip[:position] for position, character in enumerate(clip) if character == "_"]
    # A gs:// address is written as it is, a file:// one encoded, and some file systems decompose letters.
    endings = {ending for form in list_forms(name) for ending in (f"/{form}", f"/{quote(form)}")}
    url = await MediaRepository(conn).find_clip_url(videos, clip, list(endings))
    if url is None:
        raise ClipNotFound
    return url
